/* heartbeat.pml: a worker that lives and answers keeps its claims; a dead worker's claims are requeued in time.
 *
 * Models signalbus/transport/heartbeat.py (Heartbeat.run, Heartbeat.send_heartbeat), the scripts HEARTBEAT, FORGET and
 * CLAIM, the test for a dead owner in RESTORE (lua_scripts.py), Unacked.reclaim (unacked.py), and which claims count as in
 * flight (broker_claims.py, Owner.is_in_flight). The content of a claim is in claims.pml. Two workers:
 *   Claim      the event loop (channel.py), for one of its CLAIMS claims, again and again
 *   Heartbeat  the thread that sends heartbeats
 *   Time       one tick is 2 s: LEASE is 6 s = 3 ticks, a heartbeat comes after at most 3.3 s < 2 ticks. (Redis' whole seconds
 *           can make a lease 5 s long, so 3 : 2 is stricter than the code's 5 : 3.3.) Time passes in any state of the event
 *           loops; a heartbeat is never late, unless its worker is frozen.
 *   Server     Redis; every script is one step
 *
 * Properties, as assertions:
 * A  No worker requeues a claim of one that is neither dead nor frozen (after a freeze: from its next heartbeat on).
 * B  No worker is forgotten that has claims in Redis: only a visibility timeout would find them.
 * C  Without an outage, a dead worker's claims are requeued after LEASE and one heartbeat of another worker.
 *
 * -DDEATH    worker 0 dies at any step       -DFREEZE  worker 0 stands still at any step, again and again
 * -DOUTAGE=n  the server is away n times, for any time; all connections are lost then
 * Defects that the code had:
 * -DDEFECT_LATE_HEARTBEAT    after a look that finds no worker the next comes LEASE later, not HEARTBEAT_INTERVAL
 * -DDEFECT_UNREAD_REPLY      a claim whose reply is not read does not count as in flight
 * -DDEFECT_UNHEARD_END       an acknowledgement that Redis has not heard of does not count as in flight
 * -DDEFECT_UNNOTICED_OUTAGE  (needs -DOUTAGE) an outage between two heartbeats of a worker makes it no more patient
 * -DDEFECT_UNCHECKED_RESTORE (needs -DFREEZE; never in the code) RESTORE does not look whether the worker is dead still
 */
#ifndef CLAIMS
#define CLAIMS 1
#endif
#ifndef OUTAGE
#define OUTAGE 0
#endif
#ifndef WHOLE
#define WHOLE 1               /* so many workers have claims in all their states; the other's are stored, or not */
#endif
#ifndef PATIENCE
#define PATIENCE 7            /* 15 s without taking anybody for dead, after an outage */
#endif
#define LEASE 3
#define PERIOD 2
#define AGAIN 1               /* 1.1 s after an error */
#define FIRST(o) ((o) * CLAIMS)

mtype = { NONE, ASKED, MADE, LOST, HELD, ENDED, GONE };
mtype claim[2 * CLAIMS] = NONE;   /* what the worker knows of a claim; MADE and GONE: Redis' reply is not read yet */
bool stored[2 * CLAIMS];          /* Redis has it */
bool listed[2]; byte age[2];      /* the worker is in unacked_owners; ticks since its score */
byte since[2], wait[2] = PERIOD;  /* ticks since its last heartbeat; until the next */
byte quiet[2], patient[2];        /* ticks since it had anything in flight (Heartbeat._in_flight_at); of its patience */
bool beating[2];                  /* its heartbeat is not done */
bool dead, frozen, excused;       /* worker 0; excused: it was frozen, and has not been heard of since */
bool away, cut[2];                /* the server is away; the connections of a worker's channel are lost */
byte lost_for;                    /* ticks since worker 0 died with claims in Redis */

#define ACTS(o) ((o) == 1 || (!dead && !frozen))
#define EXCUSED(o) ((o) == 0 && (dead || frozen || excused))
#define IS_DEAD(o) (listed[o] && age[o] >= LEASE)

#ifdef DEFECT_UNREAD_REPLY
#define UNREAD(c) 0
#else
#define UNREAD(c) (claim[c] == ASKED || claim[c] == MADE || claim[c] == LOST)
#endif
#ifdef DEFECT_UNHEARD_END
#define UNHEARD(c) 0
#else
#define UNHEARD(c) (claim[c] == ENDED || claim[c] == GONE)
#endif
#define COUNTS(c) (claim[c] == HELD || UNREAD(c) || UNHEARD(c))
#if CLAIMS == 1
#define IN_FLIGHT(o) COUNTS(o)
#define STORED(o) stored[o]
#else
#define IN_FLIGHT(o) (COUNTS(FIRST(o)) || COUNTS(FIRST(o) + 1))
#define STORED(o) (stored[FIRST(o)] || stored[FIRST(o) + 1])
#endif

inline heard_of(o) {          /* CLAIM and HEARTBEAT write the owner's score */
    listed[o] = true; age[o] = 0;
    if :: o == 0 && !frozen -> excused = false :: else fi
}

proctype Claim(byte o; byte c) {      /* the event loop (channel.py), as far as one of its claims is concerned */
    do
    :: atomic { o >= WHOLE && ACTS(o) && claim[c] == NONE && !stored[c] && !away ->
           heard_of(o); stored[c] = true; claim[c] = HELD }
    :: atomic { o >= WHOLE && ACTS(o) && claim[c] == HELD && !away -> stored[c] = false; claim[c] = NONE }
    :: o < WHOLE -> break
    od;
    do
    :: atomic { ACTS(o) && claim[c] == NONE && !stored[c] -> claim[c] = ASKED }                    /* _send */
    :: atomic { claim[c] == ASKED && !away -> heard_of(o); stored[c] = true; claim[c] = MADE; lost_for = 0 }  /* CLAIM */
    :: atomic { ACTS(o) && claim[c] == MADE -> claim[c] = HELD }                                   /* _take_in */
    :: atomic { ACTS(o) && (claim[c] == ASKED || claim[c] == MADE) -> claim[c] = LOST }            /* _close_tracking_connection */
    :: atomic { ACTS(o) && claim[c] == LOST && !away -> stored[c] = false; claim[c] = NONE }       /* _settle */
    :: atomic { ACTS(o) && claim[c] == HELD -> claim[c] = ENDED }                                  /* acknowledge */
    :: atomic { ACTS(o) && claim[c] == ENDED && !away -> stored[c] = false; claim[c] = GONE }      /* HDEL */
    :: atomic { ACTS(o) && claim[c] == GONE -> claim[c] = NONE }                                   /* Owner.heard */
    :: atomic { ACTS(o) && claim[c] == GONE -> claim[c] = ENDED }                                  /* _close_tracking_connection */
    od
}

inline forget(p) {            /* FORGET */
    if :: IS_DEAD(p) -> assert(!STORED(p) || (EXCUSED(p) && !dead)); listed[p] = false :: else fi
}

inline restore(c, p) {        /* RESTORE of a claim of an owner that must be dead */
#ifdef DEFECT_UNCHECKED_RESTORE
    if :: stored[c] -> assert(EXCUSED(p)); stored[c] = false :: else fi
#else
    if :: stored[c] && !(listed[p] && age[p] < LEASE) -> assert(EXCUSED(p)); stored[c] = false :: else fi
#endif
}

proctype Heartbeat(byte o) {
    byte p = 1 - o, c; bool flies, again, found;
    do
    :: atomic { ACTS(o) && since[o] > 0 ->                                  /* Heartbeat.run: its wait is over */
           since[o] = 0; wait[o] = PERIOD; beating[o] = true; flies = IN_FLIGHT(o);
           if :: flies -> quiet[o] = 0 :: else fi;
#ifndef DEFECT_UNNOTICED_OUTAGE
           if :: cut[o] -> patient[o] = PATIENCE :: else fi
#endif
           };
       if
       :: flies
       :: else ->
#ifdef DEFECT_LATE_HEARTBEAT
           if :: atomic { ACTS(o) && !away && !listed[0] && !listed[1] -> wait[o] = LEASE + 1; goto done }
              :: ACTS(o) && (away || listed[0] || listed[1]) fi;
#endif
look:      if                                                               /* Unacked.first_owner: ties go either way */
           :: atomic { ACTS(o) && away -> goto refused }
           :: atomic { ACTS(o) && !away && !listed[0] && !listed[1] -> goto done }
           :: atomic { ACTS(o) && !away && listed[o] && (!listed[p] || age[o] >= age[p]) ->
                  if :: quiet[o] >= LEASE && !again -> again = true :: else -> goto done fi };
              atomic { ACTS(o); if :: away -> goto refused :: else -> forget(o) fi };
              goto look
           :: ACTS(o) && !away && listed[p] && (!listed[o] || age[p] >= age[o])
           fi
       fi;
       atomic { ACTS(o);                                                    /* HEARTBEAT */
           if :: away -> goto refused :: else fi;
           if :: flies -> heard_of(o) :: else fi;
           found = IS_DEAD(p) && !patient[o] };
       if
       :: found -> c = FIRST(p);                                            /* Unacked.reclaim */
           do
           :: atomic { c < FIRST(p) + CLAIMS && ACTS(o) -> if :: away -> goto refused :: else -> restore(c, p); c++ fi }
           :: atomic { c == FIRST(p) + CLAIMS && ACTS(o) -> if :: away -> goto refused :: else -> forget(p); break fi }
           od
       :: else
       fi;
       goto done;
refused: atomic { patient[o] = PATIENCE; wait[o] = AGAIN };
done:  atomic { beating[o] = false; flies = false; again = false; found = false; c = 0 }
    od
}

inline tick(o) {
    if :: age[o] < LEASE && listed[o] -> age[o]++ :: !listed[o] -> age[o] = 0 :: else fi;
    if :: since[o] < wait[o] -> since[o]++ :: else fi;
    if :: quiet[o] < LEASE -> quiet[o]++ :: else fi;
    if :: patient[o] -> patient[o]-- :: else fi
}

#define PROMPT(o) (!ACTS(o) || (!beating[o] && since[o] < wait[o]))

proctype Time() {
    do
    :: atomic { PROMPT(0) && PROMPT(1) -> tick(0); tick(1);
           if :: dead && STORED(0) && !OUTAGE -> lost_for++; assert(lost_for <= LEASE + PERIOD) :: else -> lost_for = 0 fi }
    od
}

proctype Fate() {
#ifdef DEATH
    dead = true;
#endif
#ifdef FREEZE
    do :: atomic { frozen = true; excused = true }; frozen = false od;
#endif
    skip
}

proctype Server() {
#if OUTAGE
    byte times;
    do
    :: atomic { times < OUTAGE && !away -> away = true; cut[0] = true; cut[1] = true; times++ }
    :: away -> away = false
    :: atomic { !away && cut[0] && ACTS(0) -> cut[0] = false; patient[0] = PATIENCE }  /* can_claim: a patient Heartbeat */
    :: atomic { !away && cut[1] -> cut[1] = false; patient[1] = PATIENCE }
    od
#else
    skip
#endif
}

init { byte c;
    atomic {
        c = 0; do :: c < 2 * CLAIMS -> run Claim(c / CLAIMS, c); c++ :: else -> break od;
        run Heartbeat(0); run Heartbeat(1); run Time(); run Fate(); run Server() } }

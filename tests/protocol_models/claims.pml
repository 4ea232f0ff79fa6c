/* claims.pml: no message is lost and none is in two places, whichever process divides, requeues or ends its claim.
 *
 * The scripts CLAIM, RESTORE (lua_scripts.py) and DIVIDE (claimed_message.py) are one step each. Between them, step by step:
 *   Claim           the event loop, for one claim after the other: ClaimingMixin._send, _take_in, _settle, _requeue_now
 *                   (channel.py), ClaimedMessage.ack, reject (claimed_message.py), Unacked.restore (HMGET, then RESTORE),
 *                   Unacked.acknowledge (ZREM, then HDEL; unacked.py)
 *   Watchdog        the thread of stragglers.py: ClaimedMessage.requeue_free (claimed_message.py)
 *   TakeBack        the heartbeat of another worker: Unacked.reclaim, of a worker that is dead or frozen
 *   Stock           a worker with kombu's own transport: BRPOP, then ZADD and HSET in one step (kombu/transport/redis.py)
 *   StockRestores   its restore_visible, for claims of ours; OursRestores: QoS.restore_visible (qos.py), for its claims
 *
 * One message of two texts (bits 1 and 2); two workers with CLAIMS claims each at one time, again and again with new tags.
 * There is no time: heartbeat.pml shows that nobody requeues the claims of a worker that is neither dead nor frozen; here
 * TakeBack requeues those of a dead or frozen one at any moment. A waiting text is taken back in one step: see ticket.pml.
 *
 * Properties, as assertions:
 * A  Each text is in the list, in a claim, in the stock worker's hands, or done: nothing is lost.
 * B  It is in one of these places only: nothing is doubled.
 * C  A text that comes without the mark "redelivered" was never begun (except by a worker that was frozen).
 *
 * -DDEATH  worker 0 dies at any step        -DFREEZE  worker 0 stands still at any step, again and again
 * -DSTOCK  a stock kombu worker beside ours -DLOSS    Redis does not answer, or a reply is lost: said again, or settled
 * Defects: -DDEFECT_BLIND_RESTORE (the code had it)  RESTORE pushes what was read, whatever the claim is by then
 *          -DDEFECT_FORGETFUL_RESTORE (never in the code)  RESTORE ends the claim and pushes nothing
 */
#ifndef CLAIMS
#define CLAIMS 1
#endif
#ifndef WORKERS
#define WORKERS 2                           /* that claim; another one's heartbeat requeues, in any case */
#endif
#define OURS (2 * CLAIMS)
#ifdef STOCK
#define ALL (OURS + 1)
#else
#define ALL OURS
#endif
#define MARK 4                              /* beside the bits of the texts: "redelivered" */

byte list[8];                               /* how many items there are of each content */
byte claim[OURS + 1]; bool indexed[OURS + 1];   /* unacked and unacked_index */
byte hand;                                  /* what a stock worker has taken off the list, and nobody knows of */
bool dead, frozen, excused;                 /* worker 0; excused: it was frozen, and has not been heard of since */
bool slow[3];                               /* a worker was frozen, or slower than the visibility timeout */
byte begun, done;                           /* texts, by anybody */
byte waiting[OURS], gone[OURS];             /* texts of a claim that have not begun; that were requeued */
bool lock[OURS], open[OURS], voided[OURS];    /* ClaimedMessage._lock; the watchdog may look; the message's ticket is void */
byte read_by[OURS + 1];                     /* how many have read a claim and not acted: its tag is not used again */

#define ACTS(o) ((o) != 0 || (!dead && !frozen))
#define SUSPECT(o) ((o) == 0 && (dead || frozen || excused))
#define FULL (list[1] || list[2] || list[3] || list[5] || list[6] || list[7])
#define IN(content, text) (((content) & (text)) != 0)

inline count(text, n) {
    n = list[text] + list[3] + list[MARK + text] + list[MARK + 3] + IN(hand, text);
    i = 0; do :: i < ALL -> n = n + IN(claim[i], text); i++ :: else -> break od; i = 0
}
inline check() {
    d_step {
        count(1, n); assert(n <= 1); assert(n == 1 || IN(done, 1));
        count(2, n); assert(n <= 1); assert(n == 1 || IN(done, 2)); n = 0 }
}
inline push(content) { list[content]++ }
inline take(content) {
    if :: list[1] -> content = 1 :: list[2] -> content = 2 :: list[3] -> content = 3
       :: list[5] -> content = 5 :: list[6] -> content = 6 :: list[7] -> content = 7 fi;
    list[content]--
}
inline begin(o, text, content) {
    assert(!IN(begun, text) || IN(content, MARK) || slow[o]);
    begun = begun | text
}

/* RESTORE of what was read; "must" is whether its owner must be dead; "again" that it is no longer what was read. */
inline restore_script(c, read, mark, must, again) {
    atomic {
        again = false;
        if :: must && !SUSPECT((c) / CLAIMS)
           :: else ->
               if :: claim[c] == 0 -> indexed[c] = false
#ifndef DEFECT_BLIND_RESTORE
                  :: claim[c] != 0 && claim[c] != read -> again = true
                  :: claim[c] == read && read != 0 ->
#else
                  :: claim[c] != 0 ->
#endif
                      claim[c] = 0; indexed[c] = false;
#ifndef DEFECT_FORGETFUL_RESTORE
                      push(read | mark)
#endif
               fi
        fi;
        check()
    }
}
/* DIVIDE: what remains of the claim; what is put into the list. */
inline divide_script(c, remains, back) {
    atomic {
        if :: claim[c] == 0 || claim[c] == remains
           :: else -> claim[c] = remains; if :: remains == 0 -> indexed[c] = false :: else fi; push(back)
        fi;
        check()
    }
}

proctype Claim(byte o; byte c) { byte mine, read, left, now, marks, i, n; bool again, said;
    do
    :: atomic { ACTS(o) && claim[c] == 0 && !indexed[c] && !read_by[c] && !lock[c] && FULL ->
           take(mine); claim[c] = mine; indexed[c] = true; check();                                  /* CLAIM */
           if :: o == 0 -> excused = false :: else fi };
       if
#ifdef LOSS
       :: ACTS(o) -> goto settle                                    /* its reply is lost */
#endif
       :: atomic { ACTS(o) -> waiting[c] = mine & 3; left = mine & 3; open[c] = (mine == 3) }
       fi;
       do                                                           /* a child runs what nobody has taken back */
       :: atomic { ACTS(o) && (waiting[c] & left) && !voided[c] ->
              if :: IN(waiting[c], 1) -> now = 1 :: else -> now = 2 fi;
              begin(o, now, mine); waiting[c] = waiting[c] & ~now };
          if :: atomic { ACTS(o) -> done = done | now; left = left & ~now; now = 0 }
             :: atomic { ACTS(o) -> left = 0 }                      /* it fails, or its child is killed */
          fi
       :: atomic { ACTS(o) && left -> left = 0 }     /* the child is killed between two; the ticket is void */
       :: atomic { ACTS(o) && !left -> break }
       od;
       if
       :: atomic { ACTS(o) && (mine != 3 || waiting[c] == 3) ->     /* nothing to be divided */
              if :: waiting[c] || now -> goto requeue :: else -> goto acknowledge fi }
       :: atomic { ACTS(o) && mine == 3 && waiting[c] != 3 && !lock[c] -> lock[c] = true; voided[c] = true }
       fi;
       if                                                           /* ack, reject: what waits goes back */
       :: waiting[c] && !gone[c] ->
#ifdef LOSS
          if :: ACTS(o) :: atomic { ACTS(o) -> lock[c] = false; goto requeue } fi;     /* Redis is away: requeue_later */
#endif
say:      atomic { ACTS(o) -> divide_script(c, 3 - waiting[c], waiting[c]);
#ifdef LOSS
              if :: !said -> said = true; goto say :: skip fi;
#endif
              gone[c] = waiting[c] }
       :: else
       fi;
       if
       :: atomic { ACTS(o) && now -> divide_script(c, 0, MARK + now); lock[c] = false }  /* reject: what is begun */
       :: atomic { ACTS(o) && !now -> lock[c] = false }
#ifdef LOSS
       :: atomic { ACTS(o) -> lock[c] = false; goto requeue }       /* Redis is away: requeue_later, without the lock */
#endif
       fi;
       goto acknowledge;
requeue:                                                            /* _requeue_now; the watchdog may still divide it */
       marks = MARK;
settle:                                                             /* _settle: nobody here has begun it, marks is 0 */
       do
       :: atomic { ACTS(o) -> read = claim[c]; if :: read :: else -> indexed[c] = false; goto over fi };
          atomic { ACTS(o) -> restore_script(c, read, marks, false, again); if :: again :: else -> goto over fi }
       od;
acknowledge:
       atomic { ACTS(o) -> indexed[c] = false };                    /* ZREM, HDEL */
       atomic { ACTS(o) -> claim[c] = 0; check();
#ifdef LOSS
           if :: !again -> again = true; goto acknowledge :: skip fi;
#endif
           skip };
over:  atomic { open[c] = false; voided[c] = false;
           mine = 0; read = 0; left = 0; now = 0; marks = 0; again = false; said = false;
           waiting[c] = 0; gone[c] = 0 }
    od
}

proctype Watchdog(byte o; byte c) { byte back, i, n; bool said;
    do
    :: atomic { ACTS(o) && open[c] && !lock[c] && waiting[c] && waiting[c] != 3 && !gone[c] ->
           lock[c] = true; voided[c] = true; back = waiting[c] };
say:   atomic { ACTS(o) -> divide_script(c, 3 - back, back);
#ifdef LOSS
           if :: !said -> said = true; goto say :: skip fi;
#endif
           if :: open[c] -> gone[c] = back :: else fi; lock[c] = false; back = 0; said = false }
    od
}

proctype TakeBack() { byte c, read, i, n; bool again;
    do
    :: atomic { c < CLAIMS && SUSPECT(0) && indexed[c] -> read_by[c]++ };
       do
       :: atomic { read = claim[c]; if :: read :: else -> indexed[c] = false; break fi };
          atomic { restore_script(c, read, MARK, true, again); if :: again :: else -> break fi }
       od;
       atomic { read_by[c]--; read = 0 }
    :: atomic { c + 1 < CLAIMS -> c++ }
    :: atomic { c > 0 -> c = 0 }
    od
}

#ifdef STOCK
inline restore_by_tag(c) {                  /* in one step: WATCH, HGET, MULTI */
    if :: claim[c] -> push(claim[c] | MARK); claim[c] = 0 :: else fi; indexed[c] = false; check()
}
proctype Stock() { byte mine, i, n;
    do
    :: atomic { claim[OURS] == 0 && !indexed[OURS] && !read_by[OURS] && FULL ->
           take(hand); check() };                                                                       /* BRPOP */
       atomic { mine = hand; claim[OURS] = hand; indexed[OURS] = true; hand = 0; check() };
       if :: mine & 1 -> begin(2, 1, mine); done = done | 1 :: else fi;
       if :: mine & 2 -> begin(2, 2, mine); done = done | 2 :: else fi;
       if :: atomic { claim[OURS] = 0; indexed[OURS] = false; check() }
          :: atomic { restore_by_tag(OURS) } fi;
       mine = 0
    od
}
proctype StockRestores() { byte c, i, n;    /* what is older than the visibility timeout, as one look has found it */
    do
    :: atomic { c < CLAIMS && SUSPECT(0) && indexed[c] -> read_by[c]++ }; atomic { restore_by_tag(c); read_by[c]-- }
    :: atomic { c + 1 < CLAIMS -> c++ }
    :: atomic { c > 0 -> c = 0 }
    od
}
proctype OursRestores() { byte read, i, n; bool again;     /* QoS.restore_visible, of a stock worker's claim */
    do
    :: atomic { indexed[OURS] -> read_by[OURS]++; slow[2] = true };
       do
       :: atomic { read = claim[OURS]; if :: read :: else -> indexed[OURS] = false; break fi };
          atomic { restore_script(OURS, read, MARK, false, again); if :: again :: else -> break fi }
       od;
       atomic { read_by[OURS]--; read = 0 }
    od
}
#endif

proctype Fate() {
#ifdef DEATH
    atomic { dead = true; slow[0] = true };
#endif
#ifdef FREEZE
    do
    :: atomic { !frozen -> frozen = true; excused = true; slow[0] = true }
    :: frozen -> frozen = false
    :: atomic { !frozen && excused -> excused = false }      /* a heartbeat */
    od;
#endif
    skip
}

init { byte c, i, n;
    atomic {
        list[3] = 1; check();
        c = 0; do :: c < WORKERS * CLAIMS -> run Claim(c / CLAIMS, c); run Watchdog(c / CLAIMS, c); c++ :: else -> break od;
        run TakeBack(); run Fate();
#ifdef STOCK
        run Stock(); run StockRestores(); run OursRestores();
#endif
        c = 0 } }

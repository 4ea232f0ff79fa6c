/* recipients.pml: one message with several recipients; one hangs, and the others are requeued, each alone.
 *
 * One claim of one text for RECIPIENTS receivers:
 *   Child      _deliver_each (resolution.py): one recipient after the other, each noted as begun and done (progress.py)
 *   Watchdog   the thread of stragglers.py: makes the ticket void, then ClaimedMessage.requeue_free, _splits, _split_off
 *              (claimed_message.py)
 *   EventLoop  the end of the message: ClaimedMessage.ack; or reject after the child's death, its error or a hard time
 *              limit; ClaimingMixin.requeue_later (channel.py) where Redis does not answer
 *   Elsewhere  any worker that takes what was requeued; another worker's Unacked.reclaim (unacked.py) after a death
 * DIVIDE is one step: it replaces the claim by the text for the recipients that are begun, and pushes a text for each that
 * waits. So is the ticket, which decides what may begin: its memory is in ticket.pml, the scripts are in claims.pml.
 *
 * Properties, as assertions:
 * A  Each recipient is in the list, in the claim, or done: nothing is lost.
 * B  No recipient is in two places.
 * C  A recipient that comes without the mark "redelivered" was never begun.
 * D  A recipient that was done when the claim was divided does not run again, even if the worker dies. Nor does one that
 *    its child has noted as done, unless the worker dies, or Redis does not answer when the message ends.
 *
 * -DRECIPIENTS=3 (4 at most)   -DDEATH  the worker dies at any step   -DLOSS  Redis does not answer, or a reply is lost
 * Defects: -DDEFECT_DONE_AGAIN (the code had it)  after a child's death all recipients are redelivered, if none waited
 *          -DDEFECT_VALID_AT_TIME_LIMIT (the code had it)  at a hard time limit the ticket holds while the states are read
 *          -DDEFECT_DONE_STAYS (never in the code)  the text that stays in the claim names those that are done
 */
#ifndef RECIPIENTS
#define RECIPIENTS 3
#endif
#define ALL ((1 << RECIPIENTS) - 1)
#define MARK 16                             /* beside a bit for each recipient: "redelivered" */

byte list[32]; byte claim = ALL;
byte waiting = ALL, now, noted;             /* on the sheet: recipients that wait, are begun, are done */
bool begins, registered, ends;              /* the text is begun; its recipients are on the sheet; the text has ended */
bool voided;                                /* the ticket */
byte gone;                                  /* recipients that were requeued (ClaimedMessage._split) */
bool lock, ended;                           /* ClaimedMessage._lock; the message has ended */
bool unanswered;                            /* a division of which Redis may have heard (ClaimedMessage._unanswered): */
byte said_stay, said_free, said_done;       /* who remains, who is free, who is done */
bool alive = true, dead, away, rejected;    /* the child; the worker; Redis was away at the message's end; its end failed */
byte begun, done;                           /* by anybody */
byte settled;                               /* were noted as done when the claim was divided, or when the message ended */

inline check() {
    d_step {
        i = 0;
        do :: i < RECIPIENTS ->
               n = (claim >> i) & 1;
               k = 1; do :: k < 32 -> if :: list[k] -> n = n + list[k] * ((k >> i) & 1) :: else fi; k++ :: else -> break od;
               assert(n <= 1); assert(n == 1 || ((done >> i) & 1)); i++
           :: else -> break od;
        i = 0; k = 0; n = 0 }
}
/* DIVIDE: the claim ends if nothing remains of it. */
inline divide(remains, free) {
    if :: claim == 0 || claim == remains
       :: else ->
           claim = remains; settled = settled | said_done;
           i = 0; do :: i < RECIPIENTS -> if :: (free >> i) & 1 -> list[1 << i]++ :: else fi; i++ :: else -> break od;
           i = 0
    fi;
    check()
}
#ifdef DEFECT_DONE_STAYS
#define STAY (now | noted)
#else
#define STAY now
#endif
/* ClaimedMessage._requeue_texts, under the lock; failed is whether Redis has not answered. */
inline give_back() {
    if :: unanswered -> divide(said_stay, said_free); gone = gone | said_free; unanswered = false :: else fi;
    if
    :: registered && (waiting & ~gone) ->
        unanswered = true; said_stay = STAY & ~gone; said_free = waiting & ~gone; said_done = noted;
        if
#ifdef LOSS
        :: failed = true
        :: true -> divide(said_stay, said_free); failed = true
#endif
        :: true -> divide(said_stay, said_free); gone = gone | said_free; unanswered = false
        fi
    :: else
    fi
}

proctype Child() { byte r;
    atomic { alive && !voided -> begins = true };                           /* Progress.begin of the text */
    atomic { alive -> registered = true };                                  /* Group.divide */
    do
    :: atomic { r < RECIPIENTS && alive -> waiting = waiting & ~(1 << r); now = 1 << r;
           if :: voided -> goto late :: else fi };
       atomic { alive -> assert((begun & now) == 0 || rejected); begun = begun | now }; /* its receiver runs, or hangs */
       atomic { alive -> done = done | now };
       atomic { alive -> noted = noted | now; now = 0; r++ }
    :: atomic { alive && r == RECIPIENTS -> break }
    od;
    goto last;
late: atomic { alive -> waiting = waiting | now; now = 0 };
last: atomic { alive -> ends = true };
    alive = false
}

proctype Watchdog() { byte i, k, n; bool failed;
    atomic { !dead && begins && !ended -> voided = true };
    do
    :: atomic { !dead && !ended && !lock -> lock = true };
       atomic { !dead -> give_back(); lock = false; if :: failed -> failed = false :: else -> break fi }
    :: dead || ended -> break
    od
}

proctype EventLoop() { byte i, k, n; bool again, whole, failed;
    if
    :: atomic { !dead && !alive }                                           /* ack */
    :: atomic { !dead && !alive -> again = true; rejected = true }                /* reject: an error of the child, */
    :: atomic { !dead && alive -> alive = false; again = true; rejected = true }  /* its death, */
    :: atomic { !dead && alive -> again = true; rejected = true }                 /* a hard time limit, then its death */
    fi;
#ifndef DEFECT_VALID_AT_TIME_LIMIT
    atomic { !dead -> voided = true };                                      /* Sheet.stop */
#endif
    if
    :: atomic { !dead && !begins -> goto restore }                          /* nothing was told: as it came, marked */
    :: atomic { !dead && begins -> whole = ends }                            /* the state of the text */
    fi;
    atomic { !dead && !lock -> lock = true };
    atomic { !dead -> give_back(); if :: failed -> away = true; lock = false; goto restore :: else fi };  /* requeue_later */
    atomic { !dead ->                                                       /* _give_out_again */
        lock = false;
        if
        :: !again || whole || claim == 0 -> goto acknowledge
        :: again && !whole && claim != 0 && !registered
#ifndef DEFECT_DONE_AGAIN
        :: again && !whole && claim != 0 && registered ->
            settled = settled | noted; claim = 0; said_stay = ALL & ~noted & ~gone;
            if :: said_stay -> list[said_stay + MARK]++ :: else fi;
            check(); goto acknowledge
#else
        :: again && !whole && claim != 0 && registered -> settled = settled | noted
#endif
        fi };
restore:
    atomic { !dead -> if :: claim -> list[claim + MARK]++; claim = 0 :: else fi; check() };
acknowledge:
    atomic { !dead -> ended = true; claim = 0; check() };
    alive = false
}

proctype Elsewhere() { byte item, r, i, k, n;
    do
    :: atomic {                                                             /* it runs any, and acknowledges it */
           do :: item < 31 -> item++ :: list[item] -> break od;
           r = 0;
           do :: r < RECIPIENTS && ((item >> r) & 1) ->
                  assert((item & MARK) || !((begun >> r) & 1));
                  assert(away || !((settled >> r) & 1));
                  begun = begun | (1 << r); done = done | (1 << r); r++
              :: r < RECIPIENTS && !((item >> r) & 1) -> r++
              :: else -> break od;
           list[item]--; check(); r = 0; item = 0 }
#ifdef DEATH
    :: atomic { dead && claim -> list[claim + MARK]++; claim = 0; check() }
#endif
    od
}

proctype Fate() { byte i, k, n;
#ifdef DEATH
    atomic { dead = true; alive = false };
#endif
    skip
}

init { atomic { run Child(); run Watchdog(); run EventLoop(); run Elsewhere(); run Fate() } }

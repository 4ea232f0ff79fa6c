/* ticket.pml: a text that a child has begun is not requeued as if it had not, without a lock between the processes.
 *
 * Models the memory that the main process of a worker shares with a child of its pool:
 *   Child      _deliver_each (batch.py) with Progress.begin, end, put_off, share, resume (progress.py)
 *   Watchdog   the thread of stragglers.py: StragglerWatchdog._divide; after PAUSE _is_over and ClaimedMessage.requeue_free
 *              (claimed_message.py)
 *   EventLoop  the end of the message: ClaimedMessage.ack; or reject after the child's death, its error or a time limit
 *   Memory     when a store is seen: those of the child, and the one that makes the ticket void, in any order (weaker than
 *              any processor's), each at most DELAY ticks late; the child's look at the ticket may be performed before
 *              the store that it follows, by as much. A child that has ended, or is dead, has stored all.
 * One message of TEXTS texts. The look at the states takes one step for each text. A division is one step, which Redis may
 * refuse: its own steps are in claims.pml.
 *
 * Properties, as assertions:
 * A  A text that is requeued unmarked was not begun, unless it has a row, which lets it run once.
 * B  No text is requeued twice.
 * C  At the end each text is done, requeued, redelivered (marked), or has a row.
 *
 * -DTEXTS=2 (3 at most)   -DDELAY=1   -DPAUSE=4  more than three delays; the code's 2 ms are about a thousand
 * -DROWS  a text may have a row; then it is put off, and shares a transaction
 * Defects: -DDEFECT_VALID_AT_TIME_LIMIT (the code had it)  at a hard time limit the ticket holds while the states are read
 *          -DPAUSE=1 (never in the code)  the states are read too early
 */
#ifndef TEXTS
#define TEXTS 2
#endif
#ifndef DELAY
#define DELAY 1
#endif
#ifndef PAUSE
#define PAUSE 4
#endif
#define STEPS TEXTS                         /* the place of the number of steps */
#define WAITING 0
#define BEGUN 1
#define DONE 2
#define SHARED 3

byte memory[4]; bool holds = true;  /* the states, the steps, the ticket: as the others see them */
byte stored[4], age[4];                     /* the child's stores that are not seen yet: value + 1; ticks */
bool voiding; byte void_age;                /* the main process' */
bool looked, saw; byte look_age;            /* the child's look at the ticket was performed early, and what it saw */
byte since_void = 255;                      /* ticks since the ticket was made void; 255: it was not */
bool alive = true, ended, over;             /* the child; the message has ended; Redis has heard of it */
bool lock;                                  /* ClaimedMessage._lock */
bool begun[TEXTS], done[TEXTS], row[TEXTS], back[TEXTS], marked[TEXTS];

inline store(place, value) {
    atomic { alive -> if :: stored[place] == 0 -> age[place] = 0 :: else fi; stored[place] = value + 1 }
}
inline see(place) { memory[place] = stored[place] - 1; stored[place] = 0; age[place] = 0 }
inline store_all() {
    d_step {
        i = 0;
        do :: i <= TEXTS -> if :: stored[i] -> see(i) :: else fi; i++
           :: else -> break od;
        looked = false; look_age = 0; i = 0 }
}
inline make_void() { if :: since_void == 255 -> voiding = true; void_age = 0; since_void = 0 :: else fi }
inline look() { i = 0; do :: i < TEXTS -> seen[i] = memory[i]; i++ :: else -> break od; i = 0 }
inline give_back(i) { assert(!back[i]); assert(!begun[i] || row[i]); back[i] = true }

proctype Memory() { byte i; bool all;
    do
    :: atomic { voiding -> holds = false; voiding = false; void_age = 0 }
    :: atomic { stored[0] -> see(0) }
    :: atomic { stored[1] -> see(1) }
    :: atomic { stored[2] -> see(2) }
    :: atomic { stored[3] -> see(3) }
    :: atomic { (since_void < PAUSE || looked || voiding) &&
                !(voiding && void_age >= DELAY) && !(looked && look_age >= DELAY) ->
           all = true;                                                      /* a tick, unless something must be seen first */
           i = 0; do :: i <= TEXTS -> if :: stored[i] && age[i] >= DELAY -> all = false :: else fi; i++ :: else -> break od;
           if :: all ->
                  if :: since_void < PAUSE -> since_void++ :: else fi;
                  if :: voiding -> void_age++ :: else fi;
                  if :: looked -> look_age++ :: else fi;
                  i = 0; do :: i <= TEXTS -> if :: stored[i] -> age[i]++ :: else fi; i++ :: else -> break od
              :: else fi;
           i = 0 }
    od
}

proctype Child() { byte t, i; bool may; bool off[TEXTS];
    do
    :: t < TEXTS ->                                                     /* Progress.begin */
        if
        :: store(t, BEGUN); store(STEPS, 1); atomic { alive -> may = holds }
        :: store(t, BEGUN); atomic { alive -> looked = true; look_age = 0; saw = holds };
           atomic { alive -> store(STEPS, 1); may = saw; looked = false }
        :: atomic { alive -> looked = true; look_age = 0; saw = holds }; store(t, BEGUN);
           atomic { alive -> store(STEPS, 1); may = saw; looked = false }
        fi;
        if
        :: !may -> store(t, WAITING); break
        :: else ->
            if
#ifdef ROWS
            :: atomic { alive -> row[t] = true; off[t] = true }; store(t, WAITING)  /* put_off */
#endif
            :: atomic { alive -> begun[t] = true };                         /* its receiver runs; end */
               atomic { alive -> done[t] = true }; store(t, DONE)
            fi
        fi;
        t++
    :: else -> break
    od;
#ifdef ROWS
    t = 0; do :: t < TEXTS -> if :: off[t] -> store(t, BEGUN) :: else fi; t++ :: else -> break od;      /* resume */
    t = 0; do :: t < TEXTS -> if :: off[t] -> store(t, SHARED) :: else fi; t++ :: else -> break od;
    t = 0; do :: t < TEXTS -> if :: off[t] -> store(t, BEGUN); atomic { alive -> begun[t] = true; done[t] = true };
                                 store(t, SHARED) :: else fi; t++ :: else -> break od;
    t = 0; do :: t < TEXTS -> if :: off[t] -> store(t, DONE) :: else fi; t++ :: else -> break od;
#endif
    atomic { alive -> store_all(); alive = false; t = 0 }
}

proctype Watchdog() { byte i; byte seen[TEXTS];
    if
    :: atomic { !ended && memory[STEPS] -> make_void() };
       since_void >= PAUSE;
       do
       :: !ended ->
          look();
          atomic { !lock -> lock = true };
          if
          :: atomic {
                 if :: over :: else ->
                     do :: i < TEXTS -> if :: seen[i] != BEGUN && seen[i] != DONE && !back[i] && !marked[i] -> give_back(i)
                                           :: else fi; i++
                        :: else -> break od fi;
                 i = 0; lock = false };
             break
          :: lock = false                                                   /* Redis does not answer: it looks again */
          fi
       :: ended -> break
       od
    :: ended
    fi
}

proctype EventLoop() { byte i; byte seen[TEXTS]; bool again, steps;
    if
    :: !alive                                                               /* the child has ended: ack */
    :: atomic { !alive -> again = true }                                    /* the child has ended by an error: reject */
    :: atomic { alive -> store_all(); alive = false; again = true }         /* the child was killed: reject */
    :: atomic { alive -> again = true }                                     /* a hard time limit: reject, and then kill it */
    fi;
#ifndef DEFECT_VALID_AT_TIME_LIMIT
    atomic { make_void() }; since_void >= PAUSE;                            /* Sheet.stop */
#endif
    atomic { !lock -> lock = true };
    steps = memory[STEPS];
    look();
    atomic {
        do :: i < TEXTS && (again || steps) ->
                if :: back[i]
                   :: !back[i] && again && (!steps || seen[i] == BEGUN || seen[i] == SHARED) -> marked[i] = true
                   :: !back[i] && steps && seen[i] == WAITING -> give_back(i)
                   :: else fi; i++
           :: else -> break od;
        i = 0; lock = false };
    ended = true;
    if :: alive -> atomic { store_all(); alive = false } :: else fi;
    over = true;
    atomic { do :: i < TEXTS -> assert(back[i] || marked[i] || done[i] || row[i]); i++ :: else -> break od; i = 0 }
}

init { atomic { run Memory(); run Child(); run Watchdog(); run EventLoop() } }

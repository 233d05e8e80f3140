/* What all models share: processes that may be killed at any step, futexes, and a judge.
 *
 * A process's body stands in ALIVE(me, { ... }): before each of its steps it may find itself killed, and then never
 * takes another one. `killed` is also the kernel's proof of death (native/src/liveness.c, rp_is_dead): it is true
 * only of who stores nothing any more.
 *
 * Slices of sleep end only after a death: without one nobody may need them, or the judge finds a sleeper. A slice
 * that ends in vain changes nothing, so it is only allowed a few times; one that does not is always allowed.
 */
#ifndef DEATHS
#define DEATHS 1
#endif

byte deaths = 0;
bool killed[N];
bool ended[N];
bool asleep[N];
byte idle_slices = 0;

#ifndef IDLE_SLICES
#define IDLE_SLICES 1
#endif
#define ALIVE(me, body) body unless { killed[me] }

/* Where nobody else can look between two stores, for a lock keeps them away, an operation is one atomic step with this
 * after each store. */
#define MAY_DIE                                                    \
    if                                                             \
    :: deaths < DEATHS -> deaths++; killed[me] = true; goto dead   \
    :: true                                                        \
    fi

/* The victims are those from FIRST_VICTIM on, VICTIMS of them. */
#ifndef FIRST_VICTIM
#define FIRST_VICTIM 0
#endif
proctype killer() {
    byte i;
    do
    :: true -> break /* enough */
    :: atomic { deaths < DEATHS ->
           select(i : FIRST_VICTIM .. FIRST_VICTIM + VICTIMS - 1);
           if
           :: !killed[i] && !ended[i] -> killed[i] = true; deaths++
           :: else
           fi
       }
    od
}

/* futex_wake(1): the kernel may pick anybody, also who was just killed. */
inline wake_one() {
    atomic {
        if
        :: asleep[0] -> asleep[0] = false
        :: N > 1 && asleep[1] -> asleep[1] = false
        :: N > 2 && asleep[2 % N] -> asleep[2 % N] = false
        :: N > 3 && asleep[3 % N] -> asleep[3 % N] = false
        :: else
        fi
    }
}

#ifdef MUTATION_NO_SLICES
#define SLICE_MAY_END(me, useful) false
#else
#define SLICE_MAY_END(me, useful) (deaths > 0 && ((useful) || idle_slices < IDLE_SLICES))
#endif

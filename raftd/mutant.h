/* mutant - planted bugs, to show that the simulator sees them (make mutants). MUTATE(NAME, good, bad) is `good` in
 * every program that is shipped; compiled with -DMUTANT=n it is `bad` at the one place whose number is n. Each is a
 * mistake that somebody has made in a Raft or could make in this one. The list is read by tests/sim/mutants.sh. */
#ifndef RAFTD_MUTANT_H
#define RAFTD_MUTANT_H

enum mutant {
    MUTANT_NONE,
    MUTANT_VOTE_NOT_PERSISTED,     /* a vote is forgotten in a crash */
    MUTANT_ACK_BEFORE_SYNC,        /* votes and answers leave before the sync they rest on */
    MUTANT_COMMIT_OLD_TERM,        /* an old term's entry is committed by counting (thesis figure 3.7) */
    MUTANT_READ_WITHOUT_QUORUM,    /* a read index that nobody confirmed */
    MUTANT_READ_BEFORE_NOOP,       /* a read index before an entry of the term is committed */
    MUTANT_READ_ROUND_SHARED,      /* a new read joins a round that was asked before it came */
    MUTANT_READS_OUTLIVE_LEADER,   /* reads are not dropped when the leadership ends */
    MUTANT_READ_BEFORE_APPLY,      /* a read is served before the entries up to its index */
    MUTANT_OWN_COPY_UNSYNCED,      /* the leader counts its own copy before it is on disk */
    MUTANT_APPLY_UNSYNCED,         /* stored gets what the log's crash may take away */
    MUTANT_VOTE_TWICE,             /* a second vote in a term */
    MUTANT_VOTE_COUNTED_TWICE,     /* the same vote, delivered twice */
    MUTANT_VOTE_FOR_SHORT_LOG,     /* a vote for whoever lacks entries */
    MUTANT_CONFLICT_NOT_SEEN,      /* entries of another term at an index pass for the same */
    MUTANT_NO_CONSISTENCY_CHECK,   /* the term before an append is not compared */
    MUTANT_HINT_IGNORED,           /* a rejected probe is repeated at the same place */
    MUTANT_BEAT_COMMIT_UNCUT,      /* a beat's commit index is not cut to what the follower has */
    MUTANT_OLD_ANSWER_COUNTS,      /* an answer of an earlier term counts in this one */
    MUTANT_QUORUM_OF_HALF,         /* half is taken for a majority, in odd clusters */
    MUTANT_QUORUM_OF_EVEN,         /* and in even ones */
    MUTANT_LEARNER_COUNTS,         /* a learner's copy counts for commitment */
    MUTANT_CONF_BEFORE_NOOP,       /* a change of membership before an entry of the term (the bug of 2015) */
    MUTANT_CONF_TWO_AT_ONCE,       /* a second change while the first is not committed */
    MUTANT_CONF_NOT_CUT,           /* a change outlives the truncation of its entry */
    MUTANT_SNAP_ASKS_NEW_LOG,      /* whether a snapshot replaced the log is asked of the new log (a bug of ours) */
    MUTANT_DROP_NOT_DURABLE,       /* the log is dropped up to what stored has applied, not synced */
    MUTANT_HAND_NOT_REWOUND,       /* stored comes back, and is not sent again what it lost */
    MUTANT_NUDGE_FORGOTTEN,        /* a lost append is never asked for */
    MUTANT_PROBE_STUCK,            /* a probe that got no answer is never repeated */
    MUTANT_WAL_NO_SYNC,            /* the log is not synced */
    MUTANT_WAL_NO_DIR_SYNC,        /* a new segment's name is not synced */
    MUTANT_WAL_TRUNCATE_UNWRITTEN, /* a truncation is not in the log */
    MUTANT_WAL_PAYLOAD_UNCHECKED,  /* a payload's checksum is not looked at */
    MUTANT_WAL_DAMAGE_IS_TORN,     /* damage in the middle is cut away as if it were a torn tail */
    MUTANT_WAL_HEAD_UNSYNCED,      /* a new segment gets its name before its head is on disk */
    MUTANT_WAL_OPEN_NAMES,         /* opening a log trusts names that the folder has not synced (a bug of ours) */
};

#ifdef MUTANT
#define MUTATE(name, good, bad) (MUTANT == (int)MUTANT_##name ? (bad) : (good))
#else
#define MUTATE(name, good, bad) (good)
#endif

#endif

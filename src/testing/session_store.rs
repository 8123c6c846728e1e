//! The rules of [`SessionStore`], as tests for any store (feature `sessions`).

use crate::store::session::SessionStore;
use crate::testing::StoreFixture;

mod cases;

super::rules! {
    /// What a [`SessionStore`] has to do (feature `sessions`). A store of sessions is a store of
    /// revocations first: it is tested by [`of_store`](Self::of_store), too.
    of_session_store, F: [StoreFixture<Store: SessionStore>];

    /// What was committed is loaded, through every handle of the store: documents and records in
    /// the order in which they were asked for.
    WhatWasCommittedIsLoaded => cases::what_was_committed_is_loaded,
    /// A load of nothing is answered with nothing.
    NothingAskedIsNothingRead => cases::nothing_asked_is_nothing_read,
    /// The records of a snapshot are those that `find` finds.
    ASnapshotHasTheRecords => cases::a_snapshot_has_the_records,
    /// The time of a snapshot is that of the clock of the store.
    ASnapshotTellsTheTime => cases::a_snapshot_tells_the_time,
    /// A commit is done only if the document is what it was when it was read; else nothing is
    /// written.
    ADocumentIsComparedAndSet => cases::a_document_is_compared_and_set,
    /// A commit that was done is answered with `Done` when it is repeated.
    ARepeatedCommitIsDone => cases::a_repeated_commit_is_done,
    /// A commit without a document after it removes the document.
    ADocumentIsRemoved => cases::a_document_is_removed,
    /// A document may be any bytes; one that is empty is not one that is absent.
    ADocumentMayBeAnyBytes => cases::a_document_may_be_any_bytes,
    /// Documents of different targets are apart, and apart from the records of the same targets.
    DocumentsAreApart => cases::documents_are_apart,
    /// A document is kept until its end and forgotten then.
    ADocumentIsForgottenAtItsEnd => cases::a_document_is_forgotten_at_its_end,
    /// A commit whose guard has changed is never answered with `Done`. If it is a conflict, nothing
    /// was written.
    AChangedGuardIsNeverDone => cases::a_changed_guard_is_never_done,
    /// A commit whose guards have not changed is done.
    AnUnchangedGuardIsDone => cases::an_unchanged_guard_is_done,
    /// If a commit and a revocation of its guard overlap, the commit is not `Done`, or it came
    /// first.
    AGuardHoldsWhenCallsOverlap => cases::a_guard_holds_when_calls_overlap,
    /// Members are counted once each, until they end or are counted no longer.
    MembersAreCounted => cases::members_are_counted,
    /// A conflict counts no members.
    AConflictCountsNoMembers => cases::a_conflict_counts_no_members,
    /// If several commits overlap and were decided on the same document, one of them is done.
    OfOverlappingCommitsOneIsDone => cases::of_overlapping_commits_one_is_done,
    /// A caller that reads, decides and commits again after each conflict loses nothing.
    NoUpdateIsLost => cases::no_update_is_lost,
    /// A commit goes on if its future is dropped after it was first polled.
    ADroppedCommitGoesOn => cases::a_dropped_commit_goes_on,
    /// `Sessions` works on the store: who signs in can refresh, and who is signed out cannot.
    SessionsWorkOnIt => cases::sessions_work_on_it,
}

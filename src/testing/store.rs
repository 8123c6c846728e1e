//! The rules of [`RevocationStore`], as tests for any store.

use crate::testing::StoreFixture;

mod cases;
mod wrapper;

super::rules! {
    /// What a [`RevocationStore`](crate::store::RevocationStore) has to do.
    of_store, F: [StoreFixture];

    /// Each kind of target revokes the tokens that carry it and no others, and is reported as the
    /// kind through which they are revoked.
    EachKindRevokesItsTokensAndNoOthers => cases::each_kind_revokes_its_tokens_and_no_others,
    /// A key revokes what was signed with it.
    AKeyRevokesWhatItSigned => cases::a_key_revokes_what_it_signed,
    /// A write that was answered with `Ok` is seen by every check that starts later, through every
    /// handle of the store.
    AConfirmedWriteIsSeenEverywhere => cases::a_confirmed_write_is_seen_everywhere,
    /// A revocation of all tokens covers those that are issued later, too.
    ARevocationOfAllCoversLaterTokens => cases::a_revocation_of_all_covers_later_tokens,
    /// A cutoff covers the whole second in which it falls, for an `iat` in whole seconds, and
    /// nothing after it. [`Receipt::reissue_at`](crate::store::Receipt::reissue_at) is the first
    /// `iat` that is not covered.
    ACutoffCoversItsSecondAndNothingLater => cases::a_cutoff_covers_its_second_and_nothing_later,
    /// A token without `iat` is covered by every cutoff.
    ATokenWithoutIatIsCovered => cases::a_token_without_iat_is_covered,
    /// A cutoff that spares a session says nothing of its tokens, whatever else is written of the
    /// target; what was revoked before covers them, and what is revoked later without sparing it.
    ACutoffSparesASession => cases::a_cutoff_spares_a_session,
    /// A second cutoff covers what was issued at the `reissue_at` of the first, also in the same
    /// millisecond.
    ACutoffAlwaysAdvances => cases::a_cutoff_always_advances,
    /// Writes are joined: in whatever order they come, the result is the same.
    WritesJoinInAnyOrder => cases::writes_join_in_any_order,
    /// No write shortens a revocation or moves a cutoff back; one that asks for more extends it.
    NothingShortensARevocation => cases::nothing_shortens_a_revocation,
    /// A write that is repeated changes nothing and is answered with the time of the first.
    ARepeatedWriteChangesNothing => cases::a_repeated_write_changes_nothing,
    /// A reinstatement undoes what was revoked before, and the target is listed and counted no
    /// more.
    AReinstatementUndoesThePast => cases::a_reinstatement_undoes_the_past,
    /// What is revoked after a reinstatement is revoked, also in the same millisecond: a tie is
    /// revoked.
    ATieIsRevoked => cases::a_tie_is_revoked,
    /// A reinstatement undoes nothing that was revoked through another target.
    AReinstatementLeavesOtherTargets => cases::a_reinstatement_leaves_other_targets,
    /// Receipts come in the order of the changes, and say what each has changed.
    ReceiptsComeInOrder => cases::receipts_come_in_order,
    /// The changes of one write are done in their order.
    ChangesOfOneWriteAreDoneInOrder => cases::changes_of_one_write_are_done_in_order,
    /// A write of nothing is answered by no receipt.
    NothingAskedIsNothingDone => cases::nothing_asked_is_nothing_done,
    /// A record says whose it is, who changed it, why and when, and how long it is kept.
    ARecordSaysWhoWhatWhyAndWhen => cases::a_record_says_who_what_why_and_when,
    /// What is over when it is written is answered with `AlreadyExpired`, and not kept.
    WhatIsOverNeedsNoRecord => cases::what_is_over_needs_no_record,
    /// A record is kept until its end: it is not forgotten earlier.
    ARecordIsKeptUntilItsEnd => cases::a_record_is_kept_until_its_end,
    /// A record that is over is not found, listed or counted, and has no part in what is written
    /// next.
    ExpiryOnlyForgets => cases::expiry_only_forgets,
    /// Ids that look like separators, patterns or parts of others are only themselves.
    UnusualIdsAreOnlyThemselves => cases::unusual_ids_are_only_themselves,
    /// The longest id, reason and actor are kept in full. An id that is longer, or empty, is
    /// refused or kept as it is.
    TheLongestTextsAreKept => cases::the_longest_texts_are_kept,
    /// Ids of different issuers, and of claims with different names, are apart.
    IdsOfOthersAreApart => cases::ids_of_others_are_apart,
    /// A listing has every record that is in effect, with pages of any size.
    AListingIsComplete => cases::a_listing_is_complete,
    /// A listing has the records that pass the filters for kind, issuer and actor, and no others.
    AListingIsFiltered => cases::a_listing_is_filtered,
    /// A cursor that the store did not give out is an error of kind `InvalidInput`.
    AForeignCursorIsAnError => cases::a_foreign_cursor_is_an_error,
    /// What is counted is what is in effect.
    CountIsWhatIsInEffect => cases::count_is_what_is_in_effect,
    /// A write goes on if its future is dropped, before or after it was first polled.
    ADroppedWriteGoesOn => cases::a_dropped_write_goes_on,
    /// Of writes that overlap, none is lost.
    OverlappingWritesAreAllKept => cases::overlapping_writes_are_all_kept,
    /// The mirrors that have applied a write can be asked for, for each fence that was given out.
    /// The answer may be that it is not known yet (`Stale`).
    AFenceCanBeAskedAbout => cases::a_fence_can_be_asked_about,
    /// After a change of server nothing that was confirmed is lost: until it is there again a check
    /// is an error that may be repeated.
    AChangeOfServerLosesNothing => cases::a_change_of_server_loses_nothing,
    /// A watch, where there is one, ends when the token is revoked, at once if it is already, and
    /// not by the revocation of another.
    AWatchEndsWithTheRevocation => cases::a_watch_ends_with_the_revocation,
    /// What is erased in a record are its words: what it revokes stays revoked, and a reinstatement
    /// undoes it. A store that cannot erase says so with an error of kind `InvalidInput`.
    ErasedNamesLeaveWhatIsRevoked => cases::erased_names_leave_what_is_revoked,
    /// What the `Revoker` writes is what a check finds.
    TheRevokerWritesWhatTheCheckFinds => cases::the_revoker_writes_what_the_check_finds,
}

//! The rules of [`Feed`](crate::store::feed::Feed), as tests for the feeds of any store.

use crate::store::feed::FeedSource;
use crate::testing::StoreFixture;

mod cases;

super::rules! {
    /// What a [`Feed`](crate::store::feed::Feed) has to do.
    of_feed, F: [StoreFixture<Store: FeedSource>];

    /// The epoch of a heartbeat is not zero, which stands for none, and its time is that of the
    /// store.
    AHeartbeatHasAnEpochAndATime => cases::a_heartbeat_has_an_epoch_and_a_time,
    /// A heartbeat that is asked for after a write was confirmed holds the write, whoever wrote.
    AHeartbeatHoldsEveryConfirmedWrite => cases::a_heartbeat_holds_every_confirmed_write,
    /// Within an epoch the number of a heartbeat never goes back.
    TheNumberOfAHeartbeatNeverGoesBack => cases::the_number_of_a_heartbeat_never_goes_back,
    /// The progress of a mirror is noted before the state is read: a write that a heartbeat does
    /// not hold finds the mirror among the followers.
    ProgressIsNotedBeforeTheStateIsRead => cases::progress_is_noted_before_the_state_is_read,
    /// A mirror is found under its name, with the change that it has applied, by all handles.
    AMirrorIsFoundWithItsProgress => cases::a_mirror_is_found_with_its_progress,
    /// A mirror that is in no epoch yet is not found: it answers nothing, so nobody waits for it.
    AMirrorWithoutAnEpochIsNotFound => cases::a_mirror_without_an_epoch_is_not_found,
    /// A mirror is found as long as its lease lasts.
    ALeaseLasts => cases::a_lease_lasts,
    /// A lease that is not renewed ends by itself.
    ALeaseEnds => cases::a_lease_ends,
    /// A mirror that leaves is not found any more.
    LeavingEndsTheLease => cases::leaving_ends_the_lease,
    /// The numbers of the entries of the log follow each other: none is repeated or left out, and
    /// the last is that of the heartbeat.
    TheNumbersOfTheLogFollowEachOther => cases::the_numbers_of_the_log_follow_each_other,
    /// The places of the entries of the log increase, and those of later writes are behind the
    /// tail.
    ThePlacesOfTheLogIncrease => cases::the_places_of_the_log_increase,
    /// Every change has an entry in the log.
    EveryChangeHasAnEntry => cases::every_change_has_an_entry,
    /// An entry has everything that is known of its target, as the store itself says it.
    AnEntryHasTheWholeFact => cases::an_entry_has_the_whole_fact,
    /// Only entries after the place that was asked for are read.
    OnlyLaterEntriesAreRead => cases::only_later_entries_are_read,
    /// A read without entries waits for one and ends when there is one.
    AReadWaitsForAnEntry => cases::a_read_waits_for_an_entry,
    /// A read without entries ends when its time is over, and not much earlier.
    AReadWithoutEntriesEnds => cases::a_read_without_entries_ends,
    /// A snapshot has each fact that is there from its first page to its last.
    ASnapshotHasWhatIsThereThroughout => cases::a_snapshot_has_what_is_there_throughout,
    /// A snapshot revokes nothing that the store does not revoke.
    ASnapshotRevokesNothingElse => cases::a_snapshot_revokes_nothing_else,
    /// A snapshot ends.
    ASnapshotEnds => cases::a_snapshot_ends,
    /// The count is about the number of facts in a snapshot.
    TheCountIsAboutRight => cases::the_count_is_about_right,
    /// Facts are found in the order in which they were asked for, one answer for each.
    FactsAreFoundInOrder => cases::facts_are_found_in_order,
    /// Every fact that is replayed, of whatever kind, is in force as it is, and is a change like
    /// any other: it has a number and an entry.
    AReplayIsAWrite => cases::a_replay_is_a_write,
    /// A replay of what the store knows, or knows better, changes nothing.
    AReplayOfWhatIsKnownChangesNothing => cases::a_replay_of_what_is_known_changes_nothing,
    /// A new connection finds the same epoch, and the log goes on where it was left.
    ANewConnectionGoesOn => cases::a_new_connection_goes_on,
    /// Each target belongs to exactly one feed: that of the shard which its receipts name.
    EachTargetBelongsToOneFeed => cases::each_target_belongs_to_one_feed,
    /// After a loss of data the epoch is another, and the tokens from before are in doubt.
    ALossIsANewEpochWithADoubt => cases::a_loss_is_a_new_epoch_with_a_doubt,
    /// A doubt is not ended for a mirror that has missed a change, nor if another doubt or epoch is
    /// meant.
    ADoubtIsNotEndedByOneThatMissedAChange
        => cases::a_doubt_is_not_ended_by_one_that_missed_a_change,
    /// A feed that says that a doubt has ended is without one, and one that refuses still has it.
    /// All that was lost and replayed before is found.
    TheAnswerToTheEndOfADoubtIsTrue => cases::the_answer_to_the_end_of_a_doubt_is_true,
}

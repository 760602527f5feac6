//! The conformance suite of stores: what every adapter of [`Store`](super::Store) must do. An adapter runs it with
//! [`run_store_suite`].

pub(crate) mod agents;
pub(crate) mod budgets;
pub(crate) mod clusters;
pub(crate) mod entering;
pub(crate) mod fixture;
pub(crate) mod issuing;
pub(crate) mod journal;
pub(crate) mod lists;
pub(crate) mod outages;
pub(crate) mod outbox;
pub(crate) mod proofs;
pub(crate) mod pruning;
pub(crate) mod racing;
pub(crate) mod revoking;
pub(crate) mod rules;
pub(crate) mod targets;
pub(crate) mod weighing;
pub(crate) mod wrong_time;

/// Makes one test of each function of the suite; `$make` gives a fresh store, and a guard that keeps it alive.
macro_rules! run_store_suite {
    ($make:expr; $($module:ident: $($test:ident)+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let (store, _guard) = $make;
                $crate::store::suite::$module::$test(store).await;
            }
        )+)+
    };
}

/// As [`run_store_suite`], with the list of all tests filled in.
macro_rules! store_suite {
    ($make:expr) => {
        $crate::store::suite::run_store_suite! {
            $make;
            journal:
                a_journal_is_written_by_compare_and_swap
                of_two_writers_of_one_revision_one_wins
                keys_come_and_go_with_the_journal
                a_bundle_has_one_number_and_numbers_never_go_back;
            clusters:
                a_cluster_is_kept_as_last_saved;
            agents:
                an_agent_is_remembered_once
                the_first_use_of_a_certificate_ends_the_older_ones
                a_clock_that_goes_back_makes_no_certificate_older
                an_agent_that_is_revoked_or_denied_gets_nothing_by_what_it_has
                expiry_gives_no_revoked_agent_anything_back
                what_the_ledger_lacks_is_unknown
                who_is_waited_for_holds_a_certificate_that_counts
                what_an_agent_reported_is_kept_until_it_reports_something_else;
            budgets:
                a_budget_displaces_the_oldest_and_locks_nobody_out
                a_budget_used_up_by_a_clock_that_was_ahead_holds_up_nobody
                a_budget_without_a_pod_counts_per_process_and_node
                an_agent_that_asks_without_end_gets_its_bucket
                a_budget_frees_what_expired_or_was_revoked;
            issuing:
                what_was_issued_is_listed
                lists_match_whole_segments_pods_and_nodes
                a_serial_is_used_once
                a_node_token_belongs_to_one_key
                live_certificates_are_counted_by_authority
                a_batch_has_a_bound;
            revoking:
                a_clock_that_was_ahead_hides_nothing_from_a_revocation
                a_revoked_identity_is_marked_and_denied
                a_neighbour_is_not_denied
                a_revoked_serial_denies_nothing
                a_serial_that_the_ledger_lacks_needs_its_authority
                a_named_authority_counts_before_the_ledger
                an_expired_certificate_is_not_revoked
                revoking_again_changes_nothing
                keep_issuing_leaves_the_denial_out
                a_compromised_key_is_never_certified_again
                a_denial_ends_by_itself
                a_lifted_denial_revives_no_certificate
                a_longer_denial_is_added_to_a_shorter_one;
            targets:
                a_prefix_is_denied_by_whole_segments
                a_denied_pod_gets_nothing_and_its_neighbours_do
                a_pod_by_name_is_all_that_had_the_name
                a_denied_node_gets_nothing_by_any_path
                a_denied_prefix_of_agents_shuts_them_out
                all_that_an_authority_signed_is_marked_and_nobody_denied
                targets_are_marked_once_and_denied_once;
            weighing:
                what_is_automatic_leaves_room_for_admins
                an_entry_says_since_when_it_is_invalid;
            entering:
                a_full_list_never_refuses_the_denial
                what_waits_enters_once_there_is_room_and_pushes_nobody_off
                what_entered_late_stays_until_a_list_has_named_it
                room_comes_back_with_expiry_and_what_ended_does_not_take_it
                a_leaked_key_finds_room_where_an_identity_does_not
                lists_of_one_room_share_it_and_others_have_none;
            lists:
                crl_numbers_only_grow
                a_crl_of_an_older_set_is_refused
                an_entry_stays_until_listed_once_after_expiry;
            outages:
                tokens_of_pods_are_told_while_certificates_rest_on_them
                what_rests_on_an_outage_waits_for_its_review
                an_outage_gives_nobody_more_than_he_had
                an_issued_line_says_that_it_rests_on_an_outage;
            rules:
                rules_are_kept_as_last_accepted_with_their_line
                rules_of_admins_are_kept_apart_and_with_what_is_accepted
                who_lives_by_rules_is_told_once_with_the_newest_rule;
            proofs:
                a_list_is_known_by_its_number_for_a_while
                a_proof_is_kept_and_written_once_until_it_is_dropped
                what_has_ended_and_left_the_lists_is_known;
            outbox:
                every_change_leaves_its_lines_in_order
                an_issued_line_says_what_the_row_says
                a_journal_that_lost_leaves_no_line
                lines_leave_once_they_are_emitted
                beyond_the_bound_lines_are_left_out_and_told
                a_probe_says_nothing_but_that_the_store_takes_something;
            pruning:
                rows_stay_a_day_and_until_a_later_list
                a_time_that_is_not_settled_lets_nothing_go
                all_that_may_go_goes_at_once
                small_tables_are_pruned
                a_revocation_while_the_clock_is_behind_finds_every_row;
            wrong_time:
                what_has_ended_by_a_time_that_may_be_wrong_is_revoked
                what_had_ended_by_the_mark_is_revoked_where_it_may_be_earlier
                a_denial_ends_by_the_earliest_time_it_may_be
                an_entry_stays_until_its_end_is_settled;
            racing:
                nothing_of_a_denied_identity_slips_between
                nothing_of_a_denied_prefix_pod_or_node_slips_between
                a_budget_holds_under_concurrency;
        }
    };
}

pub(crate) use {run_store_suite, store_suite};

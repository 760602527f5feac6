//! What the API servers say the time is: the `Date` of calls that were answered quickly. Pure.
//!
//! A `Date` has whole seconds and is as old as its answer took to arrive, so a slow call says little. It is carried on by
//! elapsed time and forgotten after a minute. With several clusters the median speaks: one wrong API server is outvoted
//! where there are three, and stands against the other, which means silence, where there are two.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use signet_certs::time::rfc3339;

use super::judge::{TOLERANCE, apart};

/// A call that took longer says nothing about time.
pub(crate) const QUICK: Duration = Duration::from_secs(2);
/// How long a `Date` counts.
pub(crate) const FRESH: Duration = Duration::from_secs(60);
/// `Date` is cut to whole seconds; on average half of one is missing.
const CUT: Duration = Duration::from_millis(500);

/// What one API server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// Its time, carried on to the moment of asking.
    pub(crate) date: SystemTime,
    /// How long ago it was heard.
    pub(crate) age: Duration,
}

/// Who says what, in words.
pub(crate) fn say(told: &[Told]) -> String {
    let one = |told: &Told| format!("the API server of `{}` says {}", told.cluster, rfc3339(told.date));
    told.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The last quick answer of each cluster.
#[derive(Debug, Default)]
pub(crate) struct Dates {
    heard: BTreeMap<String, (SystemTime, Duration)>,
}

impl Dates {
    /// A call ended at `elapsed` after `took`, and its answer was dated `date`.
    pub(crate) fn hear(&mut self, cluster: &str, date: SystemTime, took: Duration, elapsed: Duration) {
        if took > QUICK {
            return;
        }
        let Some(date) = date.checked_add(CUT + took / 2) else {
            return;
        };
        match self.heard.get_mut(cluster) {
            Some(last) => *last = (date, elapsed),
            None => {
                self.heard.insert(cluster.to_owned(), (date, elapsed));
            }
        }
    }

    /// What counts at `elapsed`, by cluster.
    pub(crate) fn told(&self, elapsed: Duration) -> Vec<Told> {
        let told = |(cluster, (date, at)): (&String, &(SystemTime, Duration))| {
            let age = elapsed.saturating_sub(*at);
            let date = date.checked_add(age)?;
            (age <= FRESH).then(|| Told {
                cluster: cluster.clone(),
                date,
                age,
            })
        };
        self.heard.iter().filter_map(told).collect()
    }

    /// The second clock at `elapsed`: the median, and with an even number the middle of the middle two, unless these
    /// disagree.
    pub(crate) fn second_clock(&self, elapsed: Duration) -> Option<SystemTime> {
        let mut dates: Vec<SystemTime> = self.told(elapsed).into_iter().map(|told| told.date).collect();
        dates.sort_unstable();
        let (low, high) = (
            *dates.get(dates.len().checked_sub(1)? / 2)?,
            *dates.get(dates.len() / 2)?,
        );
        let between = apart(low, high);
        (between <= TOLERANCE).then(|| low + between / 2)
    }

    /// Who tells another time than `wall`: those that do where the second clock does, or where all do and it is silent.
    pub(crate) fn against(&self, wall: SystemTime, elapsed: Duration) -> Vec<Told> {
        let differs = |date: SystemTime| apart(date, wall) > TOLERANCE;
        let told = self.told(elapsed);
        let speaks_against = self
            .second_clock(elapsed)
            .map_or_else(|| told.iter().all(|told| differs(told.date)), differs);
        let against = told
            .into_iter()
            .filter(|told| speaks_against && differs(told.date));
        against.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn heard(seconds: &[u64]) -> Dates {
        let mut dates = Dates::default();
        for (number, second) in seconds.iter().enumerate() {
            dates.hear(&number.to_string(), at(*second), Duration::ZERO, NOW);
        }
        dates
    }

    #[test]
    fn a_date_is_carried_on_and_forgotten_after_a_minute() {
        let dates = heard(&[0]);
        assert_eq!(dates.second_clock(NOW), Some(at(0) + CUT));
        let later = NOW + Duration::from_secs(60);
        assert_eq!(dates.second_clock(later), Some(at(60) + CUT));
        assert_eq!(dates.second_clock(later + Duration::from_millis(1)), None);
        assert_eq!(dates.told(NOW)[0].age, Duration::ZERO);
    }

    #[test]
    fn a_slow_answer_says_nothing_and_leaves_the_last_one() {
        let mut dates = heard(&[0]);
        dates.hear("0", at(900), QUICK + Duration::from_millis(1), NOW);
        assert_eq!(dates.second_clock(NOW), Some(at(0) + CUT));
        dates.hear("0", at(900), QUICK, NOW);
        assert_eq!(dates.second_clock(NOW), Some(at(901) + CUT));
    }

    #[test]
    fn the_median_speaks_and_two_that_disagree_are_silent() {
        assert_eq!(heard(&[]).second_clock(NOW), None);
        assert_eq!(heard(&[0, 10, 86_400]).second_clock(NOW), Some(at(10) + CUT));
        assert_eq!(heard(&[0, 10]).second_clock(NOW), Some(at(5) + CUT));
        assert_eq!(heard(&[0, 86_400]).second_clock(NOW), None);
        assert_eq!(heard(&[0, 0, 86_400, 86_400]).second_clock(NOW), None);
    }

    #[test]
    fn who_stands_against_a_time_is_named_where_nobody_with_weight_agrees_to_it() {
        let against = |seconds: &[u64]| -> Vec<String> {
            let against = heard(seconds).against(at(0), NOW);
            against.into_iter().map(|told| told.cluster).collect()
        };
        let nobody: [&str; 0] = [];
        assert_eq!(against(&[]), nobody);
        assert_eq!(against(&[0]), nobody);
        assert_eq!(against(&[0, 10, 86_400]), nobody, "outvoted");
        assert_eq!(against(&[0, 86_400]), nobody, "one agrees");
        assert_eq!(against(&[86_400]), ["0"]);
        assert_eq!(against(&[3600, 86_400]), ["0", "1"], "neither agrees");
        assert_eq!(against(&[0, 86_400, 86_400]), ["1", "2"]);
    }
}

use std::collections::HashMap;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        per_second: f64::from(per_second),
        burst: f64::from(burst),
    }
}

/// All calls that may be made at this moment.
fn all<W>(queue: &mut Queue<W>, now: Instant) -> Vec<W> {
    std::iter::from_fn(|| queue.next(now)).collect()
}

#[test]
fn nodes_take_turns_however_many_calls_of_one_wait() {
    let now = Instant::now();
    let mut queue = Queue::new(rate(1, 100), now);
    for (node, calls) in [("a", 4), ("b", 2), ("c", 1)] {
        for _ in 0..calls {
            queue.join(Kind::Pods, node, node);
        }
    }
    assert_eq!(all(&mut queue, now), ["a", "b", "c", "a", "b", "a", "a"]);
    // Whoever had the fewest turns lately is next, also after a pause.
    for node in ["a", "b", "c"] {
        queue.join(Kind::Pods, node, node);
    }
    assert_eq!(all(&mut queue, now), ["c", "b", "a"]);
}

#[test]
fn of_four_calls_one_is_for_nodes_while_both_kinds_wait() {
    let now = Instant::now();
    let mut queue = Queue::new(rate(1, 100), now);
    for _ in 0..8 {
        queue.join(Kind::Pods, "bad", 'p');
        queue.join(Kind::Nodes, "bad", 'n');
    }
    assert_eq!(
        all(&mut queue, now).iter().collect::<String>(),
        "pppnpppnppnnnnnn"
    );
    // After calls for pods alone a node's is next.
    for _ in 0..3 {
        queue.join(Kind::Pods, "bad", 'p');
    }
    assert_eq!(all(&mut queue, now).len(), 3);
    queue.join(Kind::Pods, "bad", 'p');
    queue.join(Kind::Nodes, "good", 'n');
    assert_eq!(all(&mut queue, now), ['n', 'p']);
}

#[test]
fn who_leaves_is_not_called() {
    let now = Instant::now();
    let mut queue = Queue::new(rate(1, 100), now);
    let [a, b, other] = ["a", "a", "b"].map(|node| queue.join(Kind::Pods, node, node));
    queue.leave(Kind::Pods, "b", other);
    queue.leave(Kind::Pods, "a", b);
    queue.leave(Kind::Pods, "a", b);
    queue.leave(Kind::Nodes, "a", a);
    assert_eq!(queue.pause(now), Some(Duration::ZERO));
    assert_eq!(all(&mut queue, now), ["a"]);
    queue.leave(Kind::Pods, "a", a);
    assert_eq!(queue.pause(now), None);
    assert!(
        queue
            .lines
            .iter()
            .all(|line| line.nodes.is_empty() && line.order.is_empty())
    );
}

#[test]
fn who_is_refused_hears_when_another_call_would_have_its_turn() {
    let now = Instant::now();
    let mut queue = Queue::new(rate(2, 1), now);
    assert_eq!(queue.turn_after(Kind::Pods, "a"), 500 * MS);
    for node in ["a", "a", "b"] {
        queue.join(Kind::Pods, node, ());
    }
    assert_eq!(
        queue.turn_after(Kind::Pods, "a"),
        2000 * MS,
        "two of a, one of b, its own"
    );
    assert_eq!(
        queue.turn_after(Kind::Pods, "c"),
        1500 * MS,
        "the two others, then c"
    );
    assert_eq!(queue.turn_after(Kind::Nodes, "c"), 2000 * MS, "one call in four");
}

/// A random life of a queue: any number of nodes that flood it, and one that has one call now and then.
struct Life {
    draw: fastrand::Rng,
    queue: Queue<(Kind, usize)>,
    per_second: u32,
    burst: u32,
    now: Instant,
    began: Instant,
    made: u64,
    /// Turns of each that floods, by kind.
    turns: HashMap<(usize, usize), u64>,
}

/// The node that does not flood.
const HONEST: usize = usize::MAX;

impl Life {
    fn new(seed: u64) -> Self {
        let mut draw = fastrand::Rng::with_seed(seed);
        let (per_second, burst) = (draw.u32(1..=400), draw.u32(1..=400));
        let now = Instant::now();
        Self {
            queue: Queue::new(rate(per_second, burst), now),
            draw,
            per_second,
            burst,
            now,
            began: now,
            made: 0,
            turns: HashMap::new(),
        }
    }

    fn join(&mut self, kind: Kind, node: usize) {
        self.queue.join(kind, &node.to_string(), (kind, node));
    }

    /// Makes every call that may be made, and puts another in place of each that a flooding node made. How many were made before the
    /// honest node's, if that was among them.
    fn make(&mut self) -> (u64, Option<u64>) {
        let (mut count, mut honest) = (0, None);
        while let Some((kind, node)) = self.queue.next(self.now) {
            if node == HONEST {
                honest = Some(count);
            } else {
                *self.turns.entry((kind.index(), node)).or_default() += 1;
                self.join(kind, node);
            }
            count += 1;
        }
        self.made += count;
        let may =
            f64::from(self.burst) + f64::from(self.per_second) * (self.now - self.began).as_secs_f64() + 1e-6;
        let made = f64::from(u32::try_from(self.made).unwrap());
        assert!(made <= may, "{made} calls of {may}");
        (count, honest)
    }

    /// Time passes until a call may be made, and at most so much.
    fn pass(&mut self) {
        let pause = self.queue.pause(self.now).expect("somebody waits");
        // The clock of timers has whole milliseconds.
        let late = u32::try_from(self.draw.u64(0..3)).unwrap();
        self.now += Duration::from_millis(u64::try_from(pause.as_millis()).unwrap() + 1) + MS * late;
    }
}

fn walk(seed: u64) {
    let mut life = Life::new(seed);
    let (pods, nodes) = (life.draw.usize(0..60), life.draw.usize(0..60));
    let flooding = [(Kind::Pods, pods), (Kind::Nodes, nodes)];
    for (kind, count) in flooding {
        for node in 0..count {
            (0..life.draw.usize(1..5)).for_each(|_| life.join(kind, node));
        }
    }
    life.make();
    for _ in 0..20 {
        for _ in 0..life.draw.usize(0..5) {
            if pods + nodes > 0 {
                life.pass();
                life.make();
            }
        }
        let kind = if life.draw.bool() { Kind::Pods } else { Kind::Nodes };
        let bound = match kind {
            Kind::Pods => pods + (pods + 1).div_ceil(3),
            Kind::Nodes => nodes + 3 * (nodes + 1),
        };
        life.join(kind, HONEST);
        let mut before = 0;
        let before = loop {
            match life.make() {
                (_, Some(others)) => break before + others,
                (others, None) => before += others,
            }
            // Work is never left while it may be done.
            assert!(life.queue.pause(life.now).unwrap() > Duration::ZERO);
            life.pass();
        };
        assert!(
            before <= u64::try_from(bound).unwrap(),
            "{kind:?}: {before} calls before it, not {bound}"
        );
    }
    for (kind, count) in flooding {
        let turns = |node| life.turns.get(&(kind.index(), node)).copied().unwrap_or_default();
        let (least, most) = ((0..count).map(turns).min(), (0..count).map(turns).max());
        assert!(
            most.unwrap_or_default() <= least.unwrap_or_default() + 1,
            "{kind:?}: {least:?} to {most:?}"
        );
    }
}

/// Whatever floods: the rate holds, no call waits while one may be made, those that flood have equal numbers of turns, and whoever
/// has one call now and then waits no longer than [`Queue`] says. `SIGNET_SEED` walks one way alone.
#[test]
fn no_flood_keeps_anybody_waiting_for_longer_than_a_turn_of_each() {
    let chosen = std::env::var("SIGNET_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = chosen.map_or(0..200, |seed: u64| seed..seed + 1);
    for seed in seeds {
        eprintln!("SIGNET_SEED={seed}");
        walk(seed);
    }
}

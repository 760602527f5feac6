//! Work of some tens of microseconds per item, off the threads that serve connections.

use futures_util::future::join_all;

/// Below this many items the hand-over to another thread costs more than it saves.
const INLINE: usize = 4;

/// Applies `f` to every item on the blocking pool, split over the cores; keeps the order. `None` for the items of a part
/// whose thread panicked.
pub(super) async fn parallel_map<T, R>(
    items: Vec<T>,
    f: impl Fn(T) -> R + Clone + Send + 'static,
) -> Vec<Option<R>>
where
    T: Send + 'static,
    R: Send + 'static,
{
    if items.len() <= INLINE {
        return items.into_iter().map(f).map(Some).collect();
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = items.len().div_ceil(cores).max(INLINE);
    let mut items = items.into_iter();
    let mut parts = Vec::new();
    loop {
        let chunk: Vec<T> = items.by_ref().take(part).collect();
        if chunk.is_empty() {
            break;
        }
        let f = f.clone();
        let len = chunk.len();
        parts.push((
            len,
            signet_runtime::spans::spawn_blocking(move || {
                chunk.into_iter().map(f).map(Some).collect::<Vec<_>>()
            }),
        ));
    }
    let (lengths, tasks): (Vec<usize>, Vec<_>) = parts.into_iter().unzip();
    let results = join_all(tasks).await;
    lengths
        .into_iter()
        .zip(results)
        .flat_map(|(len, result)| {
            result.unwrap_or_else(|_| std::iter::repeat_with(|| None).take(len).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn order_is_kept_for_any_number_of_items() {
        for n in [0, 1, 4, 5, 63, 64, 257] {
            let doubled = parallel_map((0..n).collect(), |i: usize| i * 2).await;
            assert_eq!(doubled, (0..n).map(|i| Some(i * 2)).collect::<Vec<_>>());
        }
    }
}

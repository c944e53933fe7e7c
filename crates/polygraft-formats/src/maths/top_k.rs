//! `torch.topk` on the CPU, with its order among equals: that of the algorithms of libstdc++, step by step. A sum over the
//! places that were chosen is another one when equal numbers change places.

/// Places of the `count` largest or smallest of `scores`, the most extreme first; all when there are fewer.
#[must_use]
pub fn top_k(scores: &[f32], count: usize, largest: bool) -> Vec<usize> {
    let (n, count) = (scores.len(), count.min(scores.len()));
    let mut queue = Queue { items: scores.iter().copied().zip(0..n).collect(), largest };
    if count > 0 && count.saturating_mul(64) <= n {
        queue.heap_select(0, count, n);
        queue.sort_heap(0, count);
    } else if count > 0 {
        queue.select(count - 1);
        // The last of them is in its place already.
        queue.sort(0, count - 1, 2 * log2(count - 1));
        queue.finish_sort(count - 1);
    }
    queue.items.truncate(count);
    queue.items.into_iter().map(|(_, place)| place).collect()
}

type Item = (f32, usize);

struct Queue {
    items: Vec<Item>,
    largest: bool,
}

/// Below this many, insertion takes over.
const FEW: usize = 16;

fn log2(n: usize) -> u32 {
    n.checked_ilog2().unwrap_or(0)
}

impl Queue {
    /// Whether `a` comes before `b`.
    fn before(&self, a: Item, b: Item) -> bool {
        // An order of all numbers, so that no walk leaves the list.
        if self.largest { a.0.total_cmp(&b.0).is_gt() } else { a.0.total_cmp(&b.0).is_lt() }
    }

    fn at(&self, a: usize, b: usize) -> bool {
        self.before(self.items[a], self.items[b])
    }

    /// `__heap_select`.
    fn heap_select(&mut self, first: usize, middle: usize, last: usize) {
        let len = middle - first;
        for parent in (0..len / 2).rev() {
            let value = self.items[first + parent];
            self.adjust_heap(first, parent, len, value);
        }
        for i in middle..last {
            if self.at(i, first) {
                self.pop_heap(first, middle, i);
            }
        }
    }

    /// `__adjust_heap`.
    fn adjust_heap(&mut self, first: usize, top: usize, len: usize, value: Item) {
        let (mut hole, mut child) = (top, top);
        while child < (len - 1) / 2 {
            child = 2 * (child + 1);
            if self.at(first + child, first + child - 1) {
                child -= 1;
            }
            self.items[first + hole] = self.items[first + child];
            hole = child;
        }
        if len.is_multiple_of(2) && 2 * child + 2 == len {
            child = 2 * (child + 1);
            self.items[first + hole] = self.items[first + child - 1];
            hole = child - 1;
        }
        while hole > top {
            let parent = (hole - 1) / 2;
            if !self.before(self.items[first + parent], value) {
                break;
            }
            self.items[first + hole] = self.items[first + parent];
            hole = parent;
        }
        self.items[first + hole] = value;
    }

    /// `__pop_heap`.
    fn pop_heap(&mut self, first: usize, last: usize, result: usize) {
        let value = self.items[result];
        self.items[result] = self.items[first];
        self.adjust_heap(first, 0, last - first, value);
    }

    /// `__sort_heap`.
    fn sort_heap(&mut self, first: usize, last: usize) {
        for end in (first + 1..last).rev() {
            self.pop_heap(first, end, end);
        }
    }

    /// `nth_element`.
    fn select(&mut self, nth: usize) {
        let (mut first, mut last) = (0, self.items.len());
        let mut depth = 2 * log2(last);
        while last - first > 3 {
            if depth == 0 {
                self.heap_select(first, nth + 1, last);
                self.items.swap(first, nth);
                return;
            }
            depth -= 1;
            let cut = self.partition(first, last);
            if cut <= nth {
                first = cut;
            } else {
                last = cut;
            }
        }
        self.insertion_sort(first, last);
    }

    /// `__introsort_loop`.
    fn sort(&mut self, first: usize, mut last: usize, mut depth: u32) {
        while last - first > FEW {
            if depth == 0 {
                self.heap_select(first, last, last);
                self.sort_heap(first, last);
                return;
            }
            depth -= 1;
            let cut = self.partition(first, last);
            self.sort(cut, last, depth);
            last = cut;
        }
    }

    /// `__final_insertion_sort`.
    fn finish_sort(&mut self, last: usize) {
        self.insertion_sort(0, last.min(FEW));
        (FEW..last).for_each(|i| self.insert(i, 0));
    }

    /// `__unguarded_partition_pivot`.
    fn partition(&mut self, first: usize, last: usize) -> usize {
        let (a, b, c) = (first + 1, first + (last - first) / 2, last - 1);
        let median = match (self.at(a, b), self.at(b, c), self.at(a, c)) {
            (true, true, _) | (false, false, false) => b,
            (true, false, true) | (false, true, false) => c,
            (true, false, false) | (false, _, true) => a,
        };
        self.items.swap(first, median);
        let (mut low, mut high) = (first + 1, last);
        loop {
            while self.at(low, first) {
                low += 1;
            }
            high -= 1;
            while self.at(first, high) {
                high -= 1;
            }
            if low >= high {
                return low;
            }
            self.items.swap(low, high);
            low += 1;
        }
    }

    /// `__insertion_sort`.
    fn insertion_sort(&mut self, first: usize, last: usize) {
        for i in first + 1..last {
            if self.at(i, first) {
                self.items[first..=i].rotate_right(1);
            } else {
                self.insert(i, first);
            }
        }
    }

    /// `__unguarded_linear_insert`.
    fn insert(&mut self, i: usize, first: usize) {
        let value = self.items[i];
        let after = self.items[first..i].iter().rposition(|item| !self.before(value, *item));
        let to = after.map_or(first, |at| first + at + 1);
        self.items[to..=i].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maths::fnv;
    use crate::maths::torch_random::TorchRandom;

    /// The tables are of torch 2.15 on Linux: `python tests/golden/maths.py top_k`.
    #[test]
    fn equals_are_in_torchs_order() {
        for (n, kinds, count, largest, want) in TABLE {
            let scores: Vec<f32> = TorchRandom::new(4).integers(*n, *kinds).iter().map(|x| *x as f32).collect();
            let places = top_k(&scores, *count, *largest);
            let hash = fnv(places.iter().flat_map(|p| (*p as u64).to_le_bytes()));
            assert_eq!(hash, *want, "{n} {kinds} {count} {largest}: {:?}", &places[..places.len().min(8)]);
        }
    }

    #[test]
    fn unequal_ones_are_sorted() {
        for n in [0, 1, 2, 3, 5, 17, 100, 5000] {
            let scores = TorchRandom::new(9).uniform(n, -1.0, 1.0);
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            for count in [0, 1, n / 70, n / 2, n, n + 1] {
                assert_eq!(top_k(&scores, count, false), order[..count.min(n)], "{n} {count}");
                let back: Vec<usize> = order.iter().rev().take(count).copied().collect();
                assert_eq!(top_k(&scores, count, true), back, "{n} {count}");
            }
        }
        // Nothing is out of bounds where numbers are none, or all are equal, or sorted already.
        for scores in [
            vec![f32::NAN; 300],
            vec![0.0; 300],
            (0..3000).map(|i| i as f32).collect(),
            (0..3000).map(|i| -(i as f32)).collect(),
        ] {
            for count in [1, 4, 200, 300] {
                assert_eq!(top_k(&scores, count, true).len(), count);
                assert_eq!(top_k(&scores, count, false).len(), count);
            }
        }
    }

    /// How many, of how many kinds, how many of them, the largest or not, and what comes out.
    const TABLE: &[(usize, u32, usize, bool, u64)] = &[
        (10, 2, 4, true, 0xa3da_b12a_e238_ad26),
        (10, 2, 10, false, 0x0916_de00_e176_29a4),
        (100, 5, 1, true, 0x89cd_3129_1d2a_efa4),
        (1000, 7, 15, false, 0x434e_60ad_ee92_18db),
        (1000, 7, 16, true, 0x2242_ff38_8c94_5518),
        (1000, 3, 500, true, 0x60fd_74ee_19b4_ff55),
        (1000, 1, 40, true, 0x2f04_dd10_0a5c_3761),
        (5000, 40, 78, true, 0xb041_5fd1_0516_7ada),
        (5000, 40, 79, false, 0x4b79_1ac3_88dd_f992),
        (5000, 2, 4000, false, 0x4458_4e4b_0d4b_0575),
        (5000, 300, 5000, true, 0x7ff6_a0c2_2d80_017d),
        (40000, 3, 600, true, 0x362a_16c2_4bd4_4fb1),
        (40000, 9, 30000, false, 0xffb0_0ba2_7a1a_e614),
    ];
}

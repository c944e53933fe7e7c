"""`torch.topk` on a CPU, to the order of equal values: `python topk.py` compares it with torch on 800 draws full of ties.

Super-Tuning without its indices saved ties its values to that order, and a base in half precision has equal magnitudes by
the dozen. Torch sorts (value, index) pairs with libstdc++'s `partial_sort` when 64·k is at most n, else with its
`nth_element` for the k-th and its `sort` for those before it
the functions here are those of bits/stl_algo.h and
bits/stl_heap.h, each over a slice [first, last) of a list.
"""

import random

import torch


def push_heap(a, first, hole, top, value, less):
    parent = (hole - 1) // 2
    while hole > top and less(a[first + parent], value):
        a[first + hole] = a[first + parent]
        hole = parent
        parent = (hole - 1) // 2
    a[first + hole] = value


def adjust_heap(a, first, hole, length, value, less):
    top = hole
    child = hole
    while child < (length - 1) // 2:
        child = 2 * (child + 1)
        if less(a[first + child], a[first + child - 1]):
            child -= 1
        a[first + hole] = a[first + child]
        hole = child
    if length & 1 == 0 and child == (length - 2) // 2:
        child = 2 * (child + 1)
        a[first + hole] = a[first + child - 1]
        hole = child - 1
    push_heap(a, first, hole, top, value, less)


def make_heap(a, first, last, less):
    n = last - first
    if n < 2:
        return
    p = (n - 2) // 2
    while True:
        adjust_heap(a, first, p, n, a[first + p], less)
        if p == 0:
            return
        p -= 1


def pop_heap(a, first, last, result, less):
    v = a[result]
    a[result] = a[first]
    adjust_heap(a, first, 0, last - first, v, less)


def heap_select(a, first, middle, last, less):
    make_heap(a, first, middle, less)
    for i in range(middle, last):
        if less(a[i], a[first]):
            pop_heap(a, first, middle, i, less)


def sort_heap(a, first, last, less):
    while last - first > 1:
        last -= 1
        pop_heap(a, first, last, last, less)


def partial_sort(a, first, middle, last, less):
    heap_select(a, first, middle, last, less)
    sort_heap(a, first, middle, less)


def median_to_first(a, result, x, y, z, less):
    if less(a[x], a[y]):
        m = y if less(a[y], a[z]) else (z if less(a[x], a[z]) else x)
    else:
        m = x if less(a[x], a[z]) else (z if less(a[y], a[z]) else y)
    a[result], a[m] = a[m], a[result]


def partition_pivot(a, first, last, less):
    mid = first + (last - first) // 2
    median_to_first(a, first, first + 1, mid, last - 1, less)
    pivot = first
    f, l = first + 1, last
    while True:
        while less(a[f], a[pivot]):
            f += 1
        l -= 1
        while less(a[pivot], a[l]):
            l -= 1
        if not f < l:
            return f
        a[f], a[l] = a[l], a[f]
        f += 1


def unguarded_insert(a, last, less):
    v = a[last]
    n = last - 1
    while less(v, a[n]):
        a[last] = a[n]
        last = n
        n -= 1
    a[last] = v


def insertion_sort(a, first, last, less):
    if first == last:
        return
    for i in range(first + 1, last):
        if less(a[i], a[first]):
            v = a[i]
            a[first + 1:i + 1] = a[first:i]
            a[first] = v
        else:
            unguarded_insert(a, i, less)


def lg(n):
    return n.bit_length() - 1


def nth_element(a, first, nth, last, less):
    if first == last or nth == last:
        return
    depth = lg(last - first) * 2
    while last - first > 3:
        if depth == 0:
            heap_select(a, first, nth + 1, last, less)
            a[first], a[nth] = a[nth], a[first]
            return
        depth -= 1
        cut = partition_pivot(a, first, last, less)
        if cut <= nth:
            first = cut
        else:
            last = cut
    insertion_sort(a, first, last, less)


def introsort(a, first, last, depth, less):
    while last - first > 16:
        if depth == 0:
            return partial_sort(a, first, last, last, less)
        depth -= 1
        cut = partition_pivot(a, first, last, less)
        introsort(a, cut, last, depth, less)
        last = cut


def sort(a, first, last, less):
    if first == last:
        return
    introsort(a, first, last, lg(last - first) * 2, less)
    if last - first > 16:
        insertion_sort(a, first, first + 16, less)
        for i in range(first + 16, last):
            unguarded_insert(a, i, less)
    else:
        insertion_sort(a, first, last, less)


def topk(values, k, largest):
    a = [(v, i) for i, v in enumerate(values)]
    less = (lambda x, y: x[0] > y[0]) if largest else (lambda x, y: x[0] < y[0])
    n = len(a)
    if k * 64 <= n:
        partial_sort(a, 0, k, n, less)
    else:
        nth_element(a, 0, k - 1, n, less)
        sort(a, 0, k - 1, less)
    return [i for _, i in a[:k]]


def main():
    for t in range(400):
        g, r = torch.Generator().manual_seed(t), random.Random(t)
        n = r.choice([5, 17, 40, 100, 500, 2025, 6000])
        k = max(1, min(n, int(n * r.choice([0.005, 0.01, 0.05, 0.2, 0.5, 0.9, 1.0]))))
        x = torch.randint(0, r.choice([3, 20, 300, 10**6]), (n,), generator=g).float()
        if r.random() < 0.2:
            x, _ = x.sort()
        for largest in (True, False):
            assert torch.topk(x, k, largest=largest)[1].tolist() == topk(x.tolist(), k, largest), (n, k, largest)
    print("as torch has it")


if __name__ == "__main__":
    main()

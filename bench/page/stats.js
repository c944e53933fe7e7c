// Medians, spreads and paired ratios. Used by the page and by Node.

/** The `p`-quantile of some numbers (nearest rank). */
export function quantile(list, p) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(p * sorted.length) - 1))];
}
export const median = (list) => quantile(list, 0.5);

/** Median and spread of `b[i] / a[i]`: the median of ratios, not the ratio of medians. */
export function paired(a, b) {
  const ratios = a.map((x, i) => b[i] / x);
  return { median: median(ratios), p10: quantile(ratios, 0.1), p90: quantile(ratios, 0.9), rounds: ratios.length };
}

/** The smallest cosine between corresponding rows of two row-major matrices. */
export function worstCosine(a, b, width = 384) {
  if (a.length !== b.length || a.length % width) throw new Error(`embeddings of ${a.length} and ${b.length} numbers`);
  let worst = 1;
  for (let r = 0; r < a.length; r += width) {
    let [dot, aa, bb] = [0, 0, 0];
    for (let i = r; i < r + width; i += 1) {
      dot += a[i] * b[i];
      aa += a[i] * a[i];
      bb += b[i] * b[i];
    }
    worst = Math.min(worst, dot / Math.sqrt(aa * bb));
  }
  return worst;
}

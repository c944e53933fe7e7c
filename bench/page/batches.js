// What is fed to both sides, and how the peer's rows are put together. Used by the page and by Node.

/** Batches of one set of texts.json without end, no two alike: `{ texts, ids, tokens }`. */
export function* batches({ slot, words, sets }, name) {
  for (let n = 0; ; n += 1) {
    const [a, idA] = words[n % words.length];
    const [b, idB] = words[(n + 1 + Math.floor(n / words.length)) % words.length];
    const ids = sets[name].map((t) => t.ids.map((id, i) => (i === slot ? idA : i === slot + 1 ? idB : id)));
    yield {
      texts: sets[name].map((t) => `passage: ${a} ${b} ${t.body}`),
      ids,
      tokens: ids.reduce((sum, row) => sum + row.length, 0),
    };
  }
}

/** How the peer can run rows of different lengths: `[name, rows in batches]`. */
export const modes = {
  /** As they come, 16 at a time, padded to the longest of the 16. */
  'pad 16': (ids) => chunk(ids.map((_, i) => i), 16),
  /** Sorted by length first. */
  'sorted 16': (ids) => chunk(ids.map((_, i) => i).sort((a, b) => ids[a].length - ids[b].length), 16),
  /** No padding and no batches. */
  'one by one': (ids) => ids.map((_, i) => [i]),
};

function chunk(list, size) {
  const out = [];
  for (let i = 0; i < list.length; i += size) out.push(list.slice(i, i + size));
  return out;
}

/** `input_ids` and `attention_mask` of some rows, padded with `<pad>` (1) to the longest. */
export function padded(ids, rows) {
  const length = Math.max(...rows.map((r) => ids[r].length));
  const input = new BigInt64Array(rows.length * length).fill(1n);
  const mask = new BigInt64Array(rows.length * length);
  for (const [k, r] of rows.entries()) {
    for (const [i, id] of ids[r].entries()) {
      input[k * length + i] = BigInt(id);
      mask[k * length + i] = 1n;
    }
  }
  return { input, mask, shape: [rows.length, length] };
}

/** Runs `ids` on an onnxruntime session in one of the `modes`; embeddings in the order of `ids`, row major. */
export async function runOrt(ort, session, ids, mode, width = 384) {
  const out = new Float32Array(ids.length * width);
  for (const rows of modes[mode](ids)) {
    const { input, mask, shape } = padded(ids, rows);
    const feeds = { input_ids: new ort.Tensor('int64', input, shape), attention_mask: new ort.Tensor('int64', mask, shape) };
    const { embedding } = await session.run(feeds);
    const data = await embedding.getData();
    for (const [k, r] of rows.entries()) out.set(data.subarray(k * width, (k + 1) * width), r * width);
    embedding.dispose();
    for (const tensor of Object.values(feeds)) tensor.dispose();
  }
  return out;
}

// A BERT of two layers with random numbers, its tokenizer, adapters for it, and a server for them: all made here.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';

const HIDDEN = 32;
const FFN = 64;
const LAYERS = 2;
const WORDS =
  'the of and to a in is it you that he was for on are with as his they be at one have this from or had by hot word but what some we can out other were all there when up use your how said an each she which do their time if will way about many then them write would like so these her long make thing see him two has look more day could go come did number sound no most people my over know water than call first who may down side been now find'.split(
    ' ',
  );
const PIECES = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', ...WORDS, ...'abcdefghijklmnopqrstuvwxyz?.,'].filter(
  (word, i, all) => all.indexOf(word) === i,
);

/** Numbers in -1..1, the same in every run. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** A safetensors file of f32 tensors: `[name, shape, values]`. */
export function safetensors(tensors, metadata) {
  const header = metadata ? { __metadata__: metadata } : {};
  let at = 0;
  for (const [name, shape, values] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + values.length * 4] };
    at += values.length * 4;
  }
  let text = JSON.stringify(header);
  text += ' '.repeat((8 - (text.length % 8)) % 8);
  const out = Buffer.alloc(8 + text.length + at);
  out.writeBigUInt64LE(BigInt(text.length));
  out.write(text, 8);
  let offset = 8 + text.length;
  for (const [, , values] of tensors) {
    for (const value of values) offset = out.writeFloatLE(value, offset);
  }
  return new Uint8Array(out);
}

function tensors(seed) {
  const next = random(seed);
  const out = [];
  const add = (name, shape, scale, base = 0) => {
    const length = shape.reduce((a, b) => a * b, 1);
    out.push([name, shape, Float32Array.from({ length }, () => base + scale * next())]);
  };
  const norm = (name) => (add(`${name}.weight`, [HIDDEN], 0.1, 1), add(`${name}.bias`, [HIDDEN], 0.1));
  const linear = (name, rows, cols) => (add(`${name}.weight`, [rows, cols], 0.3), add(`${name}.bias`, [rows], 0.1));
  add('embeddings.word_embeddings.weight', [PIECES.length, HIDDEN], 1);
  add('embeddings.position_embeddings.weight', [64, HIDDEN], 0.3);
  add('embeddings.token_type_embeddings.weight', [2, HIDDEN], 0.1);
  norm('embeddings.LayerNorm');
  for (let i = 0; i < LAYERS; i += 1) {
    const layer = `encoder.layer.${i}`;
    for (const part of ['query', 'key', 'value']) linear(`${layer}.attention.self.${part}`, HIDDEN, HIDDEN);
    linear(`${layer}.attention.output.dense`, HIDDEN, HIDDEN);
    norm(`${layer}.attention.output.LayerNorm`);
    linear(`${layer}.intermediate.dense`, FFN, HIDDEN);
    linear(`${layer}.output.dense`, HIDDEN, FFN);
    norm(`${layer}.output.LayerNorm`);
  }
  return out;
}

const json = (value) => new TextEncoder().encode(JSON.stringify(value));

function tokenizer() {
  const special = PIECES.slice(0, 5).map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special,
    normalizer: { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: null,
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      type: 'WordPiece',
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab: Object.fromEntries(PIECES.map((piece, id) => [piece, id])),
    },
  };
}

/** The model's folder, by name. */
export function model(seed = 1) {
  const config = {
    architectures: ['BertModel'],
    attention_probs_dropout_prob: 0.1,
    hidden_act: 'gelu',
    hidden_dropout_prob: 0.1,
    hidden_size: HIDDEN,
    intermediate_size: FFN,
    layer_norm_eps: 1e-12,
    max_position_embeddings: 64,
    model_type: 'bert',
    num_attention_heads: 4,
    num_hidden_layers: LAYERS,
    pad_token_id: 0,
    type_vocab_size: 2,
    vocab_size: PIECES.length,
  };
  return new Map([
    ['config.json', json(config)],
    ['model.safetensors', safetensors(tensors(seed), { format: 'pt' })],
    ['tokenizer.json', json(tokenizer())],
  ]);
}

/** The same with the list that `npx polygraft quantize` writes. */
export function listed(files = model()) {
  const describe = ([name, bytes]) => [name, { bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') }];
  return new Map([...files, ['polygraft.json', json({ format: 1, files: Object.fromEntries([...files].map(describe)) })]]);
}

/** A PEFT LoRA of rank 2 on queries and values. */
export function lora(seed = 7) {
  const next = random(seed);
  const matrix = (rows, cols) => Float32Array.from({ length: rows * cols }, () => next());
  const parts = [];
  for (let i = 0; i < LAYERS; i += 1) {
    for (const part of ['query', 'value']) {
      const name = `base_model.model.encoder.layer.${i}.attention.self.${part}`;
      parts.push([`${name}.lora_A.weight`, [2, HIDDEN], matrix(2, HIDDEN)]);
      parts.push([`${name}.lora_B.weight`, [HIDDEN, 2], matrix(HIDDEN, 2)]);
    }
  }
  const config = {
    peft_type: 'LORA',
    task_type: 'FEATURE_EXTRACTION',
    base_model_name_or_path: 'tiny',
    r: 2,
    lora_alpha: 4,
    lora_dropout: 0,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    target_modules: ['query', 'value'],
  };
  return new Map([
    ['adapter_config.json', json(config)],
    ['adapter_model.safetensors', safetensors(parts, { format: 'pt' })],
  ]);
}

/** `count` texts of `length` words. */
export function texts(count, length = 12, seed = 3) {
  const next = random(seed);
  const word = () => WORDS[Math.floor(((next() + 1) / 2) * WORDS.length) % WORDS.length];
  return Array.from({ length: count }, () => Array.from({ length }, word).join(' '));
}

/**
 * A server of `files` under /model/. `answer(name, request, response, bytes)` may answer itself and return true.
 * `log` has the requests: `[name, range]`.
 */
export async function serve(files, answer = () => false) {
  const log = [];
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://x');
    const name = decodeURIComponent(pathname.replace(/%(?![\da-f]{2})/gi, '%25')).replace('/model/', '');
    const { range } = request.headers;
    log.push([name, range]);
    const bytes = files.get(name);
    if (answer(name, request, response, bytes)) return;
    if (!bytes) {
      response.writeHead(404).end('none such');
      return;
    }
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    const headers = { 'Content-Length': bytes.length - start };
    if (range) headers['Content-Range'] = `bytes ${start}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(range ? 206 : 200, headers);
    response.end(bytes.subarray(start));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // A test that fails before it closes the server must not keep the process.
  server.unref();
  const url = `http://127.0.0.1:${server.address().port}/model/`;
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url, log, close };
}

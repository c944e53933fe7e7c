// The page: what is asked, what is switched on, and what is shown for it.
import { backbone, callText, compositionFor, freeName, indexKey, ranker, rankers } from './app/compose.js';
import { $, bytesText, duration, el, errorNodes, fatal, isAbort, megabytes, say } from './app/dom.js';
import { dropZone } from './app/drop.js';
import { adapterSize, Engine, forget, isKept, manifest, packedBytes, probe, sizeOf } from './app/engine.js';
import { Fifty } from './app/fifty.js';
import { Hundred } from './app/hundred.js';
import { directionOf, guess, nameOf, ownName } from './app/languages.js';
import { Results, setStatus, showNotes } from './app/results.js';

const debounceMs = 120;

/** The vectors are measured from English: its texts take none. */
const pivot = 'en';
/** Languages of vectors for queries, besides those of the pool. */
const furtherLanguages = ['cs', 'el', 'fi', 'pl', 'pt', 'vi'];

/** Queries on the buttons; each but the Arabic one is among the fifty. */
const examples = [
  'Hogyan nyomtathatok az első oldalra más papírból, mint a többire?',
  'Wie drucke ich Adressaufkleber für alle meine Kontakte?',
  '怎样把表格横着打印？',
  'Fare olmadan metin nasıl seçilir?',
  'How do I keep other people from opening and changing my file?',
  'Как показать слушателям только часть слайдов?',
  '動く画像をファイルに保存するには',
  { text: 'كيف أحمي الخلايا من التعديل؟', lang: 'ar', page: 'scalc/01/05020600' },
];

const state = {
  switches: { queryVector: true, passageVectors: true, rank: false, rank1: false },
  own: [],
  loaded: new Set(),
  language: 'en',
};

let passages = [];
let queries = [];
let engine = null;
let results = null;
let fifty = null;
let hundred = null;
let drop = null;
let files = null;
let loading = null;
let lastLanguage = 'en';
let known = new Map();
const times = {};
/** Things to know about this session, under every ranking. */
let standing = [];

// ---------------------------------------------------------------------------------------------- query and language

function querySays() {
  const text = $('query').value.trim();
  const match = known.get(text);
  const chosen = $('lang').value;
  const guessed = match?.lang ?? guess(text, lastLanguage);
  state.language = chosen === 'auto' ? guessed : chosen;
  const option = $('lang').options[0];
  say(option, text === '' ? 'Guess' : `Guess: ${nameOf(guessed)}`);
  $('query').lang = state.language;
  for (const example of document.querySelectorAll('.example')) {
    if (example.textContent === text) example.setAttribute('aria-current', 'true');
    else example.removeAttribute('aria-current');
  }
  return { text, answer: match?.page ?? null };
}

function ask({ text, lang }) {
  $('query').value = text;
  $('lang').value = 'auto';
  lastLanguage = lang;
  results?.rewind();
  schedule(0);
}

let timer = 0;
function schedule(wait = debounceMs) {
  clearTimeout(timer);
  timer = setTimeout(rank, wait);
  showCompositions();
}

// ---------------------------------------------------------------------------------------------- ranking

let running = null;

let announcing = 0;
/** For screen readers, once the typing has come to rest. */
function announce(text) {
  clearTimeout(announcing);
  announcing = setTimeout(() => say($('announce'), text), 700);
}

/** What the switches ask for and what can be had now: an index in the making is waited for without the page. */
function effective() {
  const key = indexKey(state);
  if (key === 'base' || engine.isReady(key)) return { key, state };
  return { key: 'base', state: { ...state, switches: { ...state.switches, rank: false, rank1: false }, own: state.own.filter((each) => each.vector) } };
}

async function rank() {
  clearTimeout(timer);
  showCompositions();
  running?.abort();
  if (!engine?.indexFor('base')) return;
  const { text, answer } = querySays();
  showGate(false);
  if (text === '') {
    results.clear();
    showNotes(standing);
    setStatus('Type a query, or take an example.');
    announce('Type a query, or take an example.');
    return;
  }
  const controller = (running = new AbortController());
  const { key, state: now } = effective();
  try {
    const { plain, chosen } = await rankBoth(text, state.language, { key, now, signal: controller.signal });
    if (controller.signal.aborted) return;
    results.show({ plain, chosen, answer });
    problem(null);
    const first = times.first === undefined;
    if (first) times.first = performance.now() - times.start;
    const total = passages.length;
    const of = chosen.size < total ? `${chosen.size} of ${total} passages so far` : `${total} passages`;
    setStatus(`Ranked ${of} in ${duration(chosen.ms)}.`);
    times.last = chosen.ms;
    announce(`${of} ranked. First: ${passages[chosen.order[0]].title}, in ${nameOf(passages[chosen.order[0]].lang)}.`);
    const notes = [...standing, ...new Set(chosen.warnings)];
    if (key !== indexKey(state)) notes.push(`Still without ${indexKey(state)}: it joins when all passages are read through it.`);
    else if (ranker(state.switches) && state.switches.passageVectors && ![...engine.loaded].some((name) => name.endsWith(`.${ranker(state.switches)}`))) {
      notes.push('This server has no language vectors that were made under the ranking adapter: texts take the ranking adapter alone.');
    }
    if (chosen.cut) notes.push('The query is longer than the model reads: its end was cut off.');
    showNotes(notes);
    document.body.dataset.ranked = `${key} ${chosen.size}`;
    showDevice();
  } catch (error) {
    if (!isAbort(error)) problem('The query could not be ranked.', error);
  }
}

/** The plain base's ranking and the chosen one. */
async function rankBoth(text, lang, { key, now, signal }) {
  const queryComposition = compositionFor('query', lang, now);
  const documentComposition = (each) => compositionFor('passage', each, now);
  const one = (more) => engine.rank({ query: text, signal, ...more });
  const plainly = one({ key: 'base', queryComposition: 'base', documentComposition: () => 'base' });
  const chosenly = one({ key, queryComposition, documentComposition });
  const [plain, chosen] = await Promise.all([plainly, chosenly]);
  return { plain, chosen };
}

/** Makes the index that the switches ask for, with progress, and ranks again with it. */
async function prepareChosen() {
  const key = indexKey(state);
  engine.abandonOthers(key);
  if (engine.isReady(key)) return work(null);
  const what = key === 'base' ? 'Reading the passages' : `Reading the passages through ${key}`;
  const begun = performance.now();
  try {
    work(what, 0);
    await engine.prepare(key, {
      onProgress: (share) => {
        if (indexKey(state) === key) work(what, share, begun);
      },
      onPart: () => rank(),
    });
    times[key] = performance.now() - begun;
  } catch (error) {
    if (isAbort(error)) return;
    problem('The passages could not be read through these adapters.', error);
  }
  if (indexKey(state) === key) work(null);
  showDevice();
  await rank();
}

function work(what, share = 0, begun = 0) {
  $('work-bar').classList.toggle('idle', what === null);
  if (what === null) {
    $('work-bar').value = 0;
    say($('work-left'), '');
    const key = indexKey(state);
    return say($('work-text'), engine?.isReady(key) ? `All ${passages.length} passages are read through ${key}.` : '');
  }
  $('work-bar').value = share;
  const passed = performance.now() - begun;
  const left = begun && share > 0.05 ? `, about ${Math.max(1, Math.round(((passed / share) * (1 - share)) / 1000))} s left` : '';
  // Only this first part is said aloud: a screen reader would not come to an end otherwise.
  say($('work-text'), `${what}:`);
  say($('work-left'), `${Math.floor(share * 100)} %${left}`);
}

// ---------------------------------------------------------------------------------------------- switches

function showSwitches() {
  for (const chip of document.querySelectorAll('.chip[data-switch]')) {
    chip.setAttribute('aria-pressed', String(state.switches[chip.dataset.switch]));
  }
  $('own').hidden = state.own.length === 0;
  const list = $('own').querySelector('.own-list');
  const focused = document.activeElement?.closest?.('.own-item')?.dataset.name;
  list.replaceChildren(
    ...state.own.map((each) =>
      el(
        'span',
        { class: 'own-item', 'data-name': each.name },
        el('button', { type: 'button', class: 'chip', 'aria-pressed': String(each.on), onclick: () => toggleOwn(each) }, each.name, ' ', el('small', { text: each.vector ? `vector ${each.language ?? ''}`.trim() : each.family })),
        el('button', { type: 'button', class: 'plain remove', 'aria-label': `Remove ${each.name}`, onclick: () => removeOwn(each) }, '×'),
      ),
    ),
  );
  if (focused) list.querySelector(`[data-name="${CSS.escape(focused)}"] .chip`)?.focus();
}

function switched() {
  showSwitches();
  showCompositions();
  fifty?.outdated();
  if (!engine) return;
  rank();
  prepareIfNeeded();
}

function prepareIfNeeded() {
  // While the base is being read, it comes first; what is switched on follows.
  if (!engine.isReady('base')) return;
  const key = indexKey(state);
  engine.abandonOthers(key);
  if (!engine.isReady(key)) prepareChosen();
  else work(null);
}

function toggleOwn(each) {
  each.on = !each.on;
  switched();
}

async function removeOwn(each) {
  state.own = state.own.filter((other) => other !== each);
  switched();
  $('chips').querySelector('.chip').focus();
  try {
    await engine.remove(each.name);
  } catch (error) {
    problem(`${each.name} could not be removed.`, error);
  }
}

async function graft({ name: file, files: source }) {
  const taken = new Set([...engine.loaded, ...engine.missing, ...rankers, 'base', ...state.own.map((each) => each.name)]);
  const name = freeName(file, taken);
  const report = await engine.graft(name, source);
  state.own.push({ name, family: report.family, vector: /vector/i.test(report.family), language: report.language, on: true });
  if (report.language) addLanguage(report.language);
  switched();
  return { name, report };
}

// ---------------------------------------------------------------------------------------------- what is shown

let poolLanguages = [];
let vectorLanguages = [];

function showCompositions() {
  const { text } = querySays();
  const lang = state.language;
  // Before a ranking adapter is there, its vectors are not either: their names are shown all the same.
  const shown = { ...state, loaded: named() };
  const query = compositionFor('query', lang, shown);
  const each = poolLanguages.map((code) => [code, compositionFor('passage', code, shown)]);
  const term = (kind, code) => el('dt', {}, kind, code ? el('abbr', { class: 'tag', title: nameOf(code), text: code }) : null);
  const code = (composition) => el('dd', {}, el('code', { class: composition === 'base' ? 'none' : null, text: composition }));
  const signature = JSON.stringify([lang, query, each]);
  const box = $('compositions');
  if (box.dataset.signature !== signature) {
    box.dataset.signature = signature;
    box.replaceChildren(
      el('div', { class: 'composition' }, term('Query', lang), code(query)),
      ...each.map(([lang, composition]) => el('div', { class: 'composition' }, term('Passage', lang), code(composition))),
    );
  }
  say($('call'), callText({ query: text, queryComposition: query, passages: each, index: indexKey(state) }));
}

/** Names that are loaded, or will be once the ranking adapter that is on is. */
function named() {
  const on = ranker(state.switches);
  if (engine && (engine.loaded.has(on) || !on)) return engine.loaded;
  return new Set([...(engine?.loaded ?? []), ...vectorLanguages.flatMap((code) => (engine ? [`${code}.${on}`] : [code, `${code}.${on}`]))]);
}

let capabilities = null;

async function showDevice() {
  const facts = [];
  if (engine) {
    const { info } = engine.model;
    facts.push(['Computes on', `${info.backend.replace(/^cpu: (.*)$/, 'the CPU ($1)')}, in ${info.thread === 'worker' ? 'a worker of this tab' : 'the page’s own thread'}`]);
  }
  capabilities ??= await probe();
  facts.push(['Why', engine ? engine.model.device.reason : capabilities.notes.join(' ')]);
  if (engine) {
    const { info } = engine.model;
    facts.push(['Model', `${info.name}, ${info.layers} layers of width ${info.hidden}, ${info.precision === 'fast' ? '8-bit activations' : 'f32 activations'}`]);
    if (times.load) facts.push(['Model ready after', duration(times.load)]);
    if (times.first) facts.push(['First ranking after', duration(times.first)]);
    if (times.base) facts.push([`All ${passages.length} read in`, duration(times.base)]);
    if (times.last) facts.push(['Last ranking', duration(times.last)]);
    for (const name of rankers) {
      const report = engine.model.adapters.get(name);
      if (report) facts.push([`Adapter ${name}`, `${bytesText(report.bytes)} in memory`]);
    }
    if (times.memory) facts.push(['Memory', bytesText(times.memory)]);
  }
  $('device').replaceChildren(...facts.flatMap(([term, text]) => [el('dt', { text: term }), el('dd', { text })]));
}

function problem(what, error) {
  const box = $('problem');
  if (what === null) {
    if (!box.hidden && !box.dataset.stays) box.hidden = true;
    return;
  }
  box.hidden = false;
  box.replaceChildren(...errorNodes(what, error));
  if (fatal(error)) {
    box.dataset.stays = 'yes';
    box.append(el('p', {}, el('button', { type: 'button', class: 'primary', text: 'Load the model again', onclick: restart })));
  }
}

// ---------------------------------------------------------------------------------------------- the model

/** While the model is not here, a narrow page shows the question first. */
function showGate(on) {
  $('gate').hidden = !on;
  document.body.classList.toggle('gated', on);
}

function gate({ title, text, button, progress, reading }) {
  if (title) say($('gate-title'), title);
  if (text) say($('gate-text'), text);
  $('start').hidden = !button;
  if (button) say($('start'), button);
  $('cancel').hidden = !progress;
  $('gate-progress').hidden = !progress && !reading;
  if (reading) {
    $('gate-bar').removeAttribute('value');
    say($('gate-note'), 'The first results come in a moment.');
  }
}

async function start() {
  if (loading || passages.length === 0) return;
  loading = new AbortController();
  const { signal } = loading;
  const kept = files !== null && (await isKept(files));
  times.start = performance.now();
  problem(null);
  const title = kept ? 'Starting the model' : 'Downloading the model';
  gate({ title, text: kept ? 'It is in this browser already.' : 'To rank on this machine, the page loads a multilingual model once.', progress: true });
  $('cancel').focus({ preventScroll: true });
  $('gate-bar').removeAttribute('value');
  say($('gate-note'), 'Starting');
  const warnings = [];
  try {
    engine = await Engine.start(passages, vectorLanguages, {
      signal,
      onProgress: ({ phase, loaded, total }) => {
        if (phase !== 'fetch' || !total) return;
        $('gate-bar').value = loaded / total;
        $('gate-note').textContent = `${megabytes(loaded)} of ${megabytes(total)}`;
      },
      onWarning: ({ message }) => warnings.push(message),
    });
  } catch (error) {
    loading = null;
    gate({ title: 'The model comes first', button: isAbort(error) ? 'Download the model' : 'Try again' });
    $('start').focus({ preventScroll: true });
    if (!isAbort(error)) problem('The model could not be loaded.', error);
    return;
  }
  loading = null;
  state.loaded = engine.loaded;
  times.load = performance.now() - times.start;
  gate({ title: 'Reading the first passages', text: 'Each of the 250 passages is read once; then a query costs milliseconds.', reading: true });
  if (document.activeElement === document.body || document.activeElement === $('cancel')) $('query').focus({ preventScroll: true });
  if (engine.missing.length > 0) warnings.push(`No language vector is on this server for ${engine.missing.join(', ')}: their texts take none.`);
  results ??= new Results(passages);
  $('forget').hidden = !(files && (await isKept(files)));
  drop.enable(true);
  fifty.enable(true);
  hundred.enable(engine.model);
  if ($('query').value.trim() === '') ask(known.get(examples[0]));
  standing = warnings;
  engine.model.memory().then(({ wasm }) => ((times.memory = wasm), showDevice())).catch(() => {});
  showCompositions();
  const mine = engine;
  // The base comes first whatever is switched on: moves are counted from it.
  const begun = performance.now();
  try {
    work('Reading the passages', 0);
    await engine.prepare('base', {
      onProgress: (share) => engine === mine && work('Reading the passages', share, begun),
      onPart: () => engine === mine && rank(),
    });
    times.base = performance.now() - begun;
  } catch (error) {
    if (engine !== mine) return;
    if (!isAbort(error)) problem('The passages could not be read.', error);
    work(null);
    return;
  }
  work(null);
  await rank();
  showDevice();
  prepareIfNeeded();
}

async function restart() {
  delete $('problem').dataset.stays;
  $('problem').hidden = true;
  running?.abort();
  await engine?.dispose();
  engine = null;
  state.own = [];
  state.loaded = new Set();
  results?.clear();
  fifty.enable(false);
  hundred.enable(null);
  drop.enable(false);
  showGate(true);
  showSwitches();
  await start();
}

function addLanguage(code) {
  if ([...$('lang').options].some((option) => option.value === code)) return;
  const own = ownName(code);
  const name = nameOf(code);
  $('lang').append(el('option', { value: code, text: own === name ? name : `${name} · ${own}` }));
}

async function getJson(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: the server answered ${response.status}`);
  return response.json();
}

async function main() {
  showSwitches();
  showDevice();
  work(null);
  $('work-text').textContent = 'Choose now or later: nothing is loaded twice.';
  $('takes').open = matchMedia('(min-width: 56rem)').matches;
  $('start').addEventListener('click', start);
  $('cancel').addEventListener('click', () => loading?.abort());
  $('forget').addEventListener('click', async () => {
    await forget();
    $('forget').hidden = true;
    setStatus('The model is removed from this browser; it runs on until this tab is closed.');
    $('query').focus();
  });
  $('query').addEventListener('input', () => {
    results?.rewind();
    schedule();
  });
  $('lang').addEventListener('change', () => schedule(0));
  for (const chip of document.querySelectorAll('.chip[data-switch]')) {
    chip.addEventListener('click', () => {
      const name = chip.dataset.switch;
      state.switches[name] = !state.switches[name];
      if (rankers.includes(name)) for (const other of rankers) if (other !== name) state.switches[other] = false;
      switched();
    });
  }
  try {
    [passages, queries] = await Promise.all([getJson('passages/passages.json'), getJson('passages/queries.json')]);
  } catch (error) {
    problem('The passages could not be fetched.', error);
    return;
  }
  known = new Map([...queries, ...examples.filter((each) => each.page)].map((query) => [query.text, query]));
  const buttons = examples.map((each) => (typeof each === 'string' ? known.get(each) : each)).filter(Boolean);
  // The pages that answer the examples are read first, so that the first rankings mean something.
  const early = [...new Set(buttons.map((query) => query.page))];
  const turn = (passage) => (early.indexOf(passage.page) + early.length + 1) % (early.length + 1);
  passages = passages.map((passage, i) => [turn(passage), i, passage]).sort((a, b) => (a[0] - b[0]) || (a[1] - b[1])).map(([, , passage]) => passage);
  poolLanguages = [...new Set(passages.map((passage) => passage.lang))];
  vectorLanguages = [...poolLanguages, ...furtherLanguages].filter((code) => code !== pivot);
  for (const code of [...poolLanguages, ...furtherLanguages, 'ar'].sort((a, b) => nameOf(a).localeCompare(nameOf(b)))) addLanguage(code);
  document.querySelector('.examples').replaceChildren(
    ...buttons.map((query) => el('button', { type: 'button', class: 'example', lang: query.lang, dir: directionOf(query.lang), onclick: () => ask(query) }, query.text)),
  );
  fifty = new Fifty({
    passages,
    queries,
    prepare: async (signal) => {
      if (!engine.isReady('base')) await engine.prepare('base');
      await engine.prepare(indexKey(state));
      signal.throwIfAborted();
    },
    rankBoth: async (query, signal) => {
      const { plain, chosen } = await rankBoth(query.text, query.lang, { key: indexKey(state), now: state, signal });
      return { plain: plain.order, chosen: chosen.order };
    },
    describe,
    onError: problem,
    onPick: (query) => {
      ask(query);
      $('query').focus();
      $('query').scrollIntoView({ block: 'center' });
    },
  });
  hundred = new Hundred({ packedBytes, query: () => querySays().text, onError: problem });
  drop = dropZone({ load: graft, isReady: () => engine !== null });
  showCompositions();
  setStatus('');
  // Until now a click would have been lost.
  $('start').disabled = false;
  for (const name of rankers) {
    adapterSize(name)
      .then((bytes) => bytes && $(`${name}-size`).append(`, ${bytesText(bytes)}`))
      .catch(() => {});
  }
  try {
    files = await manifest();
  } catch (error) {
    problem('The model was not found.', error);
    return;
  }
  $('gate-size').textContent = megabytes(sizeOf(files));
  if (await isKept(files)) await start();
}

/** What is switched on, in words. */
function describe() {
  const { queryVector, passageVectors } = state.switches;
  const sides = [queryVector && 'query', passageVectors && 'passages'].filter(Boolean).join(' and ');
  const parts = [sides && `language vectors (${sides})`, ...backbone(state.switches, state.own), ...state.own.filter((each) => each.on && each.vector).map((each) => each.name)];
  return parts.filter(Boolean).join(', ') || 'no adapters';
}

main();

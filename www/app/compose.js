// From the chips to compositions: which adapters a text takes, as the text that polygraft reads.
// Nothing in here touches the page, so that Node can test it.

/** The name under which a language's vector is loaded: `hu` for the base, `hu.rank` for the one made under `rank`. */
export const vectorName = (lang, under = null) => (under ? `${lang}.${under}` : lang);

/** The ranking adapter, and its twin of one bit a number: one of them at most is on. */
export const rankers = ['rank', 'rank1'];

/** Which of the two is on, or null. */
export const ranker = (switches) => rankers.find((name) => switches[name]) ?? null;

/** `base`, one name, or `stack(a, b)`. */
export function stackOf(names) {
  if (names.length === 0) return 'base';
  return names.length === 1 ? names[0] : `stack(${names.join(', ')})`;
}

/** The adapters that change the model itself, in order: the ranking adapter and dropped ones. */
export function backbone(switches, own = []) {
  const names = own.filter((each) => each.on && !each.vector).map((each) => each.name);
  const first = ranker(switches);
  return first ? [first, ...names] : names;
}

/**
 * The vector for a text in `lang`, or null: a dropped one of that language, or else the one that was made under what
 * the text runs through.
 */
export function vectorFor(lang, { switches, own = [], loaded }) {
  const dropped = own.findLast((each) => each.on && each.vector && (each.language === lang || each.language === null));
  if (dropped) return dropped.name;
  const name = vectorName(lang, ranker(switches));
  return loaded.has(name) ? name : null;
}

/** The composition of a text of `side` (`query` or `passage`) in `lang`. */
export function compositionFor(side, lang, state) {
  const { switches, own = [] } = state;
  const dropped = own.some((each) => each.on && each.vector && (each.language === lang || each.language === null));
  const wanted = (side === 'query' ? switches.queryVector : switches.passageVectors) || dropped;
  const vector = wanted ? vectorFor(lang, state) : null;
  return stackOf([...(vector ? [vector] : []), ...backbone(switches, own)]);
}

/** Which index a state needs: only what changes the model asks for another one. */
export const indexKey = ({ switches, own }) => stackOf(backbone(switches, own));

/** A name that compositions can spell, from a file's, and that is not taken. */
export function freeName(file, taken) {
  const stem = file.replace(/\.(safetensors|bin|pt|npz|zip)$/i, '').replace(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[-.]+|[-.]+$/g, '').slice(0, 40);
  const name = stem === '' ? 'adapter' : stem;
  const free = (candidate) => candidate !== 'base' && !taken.has(candidate);
  if (free(name)) return name;
  for (let i = 2; ; i += 1) if (free(`${name}-${i}`)) return `${name}-${i}`;
}

const quoted = (text) => `'${text.replace(/\\/g, '\\\\').replace(/'/g, "\\'")}'`;

/** The passages' compositions, `[[lang, composition], …]`, as a program would write them. */
export function documentText(each) {
  const different = new Set(each.map(([, composition]) => composition));
  if (different.size < 2) return quoted(each[0]?.[1] ?? 'base');
  const counts = new Map();
  for (const [lang, composition] of each) {
    const template = composition.replace(new RegExp(`\\b${lang}\\b`), '${passage.lang}');
    if (template !== composition) counts.set(template, [...(counts.get(template) ?? []), lang]);
  }
  const [template, langs] = [...counts].sort((a, b) => b[1].length - a[1].length)[0] ?? ['', []];
  const others = each.filter(([lang]) => !langs.includes(lang));
  if (langs.length > 1 && others.length === 0) return `(passage) => \`${template}\``;
  if (langs.length > 1 && others.length === 1) {
    return `(passage) => (passage.lang === ${quoted(others[0][0])} ? ${quoted(others[0][1])} : \`${template}\`)`;
  }
  const commonest = [...different].sort((a, b) => count(each, b) - count(each, a))[0];
  const rest = each.filter(([, composition]) => composition !== commonest);
  return `(passage) => ({ ${rest.map(([lang, composition]) => `${lang}: ${quoted(composition)}`).join(', ')} })[passage.lang] ?? ${quoted(commonest)}`;
}

const count = (each, composition) => each.filter(([, other]) => other === composition).length;

/** The call that the page makes, as a program would write it. */
export function callText({ query, queryComposition, passages, index }) {
  const text = query === '' ? '…' : query;
  return [
    `const index = await model.index(passages, { adapters: ${quoted(index)} });  // once`,
    '',
    `const ranking = await index.search(${quoted(text)}, {`,
    '  adapters: {',
    `    query: ${quoted(queryComposition)},`,
    `    document: ${documentText(passages)},`,
    '  },',
    '  signal,',
    '});',
  ].join('\n');
}

/** Ranks of the right answers in a ranking, and the best one as `metric` counts them; null when there is none. */
export function answerRank(order, passages, query, metric) {
  let rank = 0;
  for (const index of order) {
    const passage = passages[index];
    const right = passage.page === query.page;
    const own = passage.lang === query.lang;
    // An answer that does not count neither takes a place nor ends the search.
    if (right && metric === 'other' && own) continue;
    if (right && metric === 'own' && !own) continue;
    rank += 1;
    if (right) return rank;
  }
  return null;
}

/** What fifty queries come to. `rows`: `{ before, after }`, ranks or null. */
export function summarize(rows) {
  const reciprocal = (rank) => (rank === null ? 0 : 1 / rank);
  const mean = (key) => rows.reduce((sum, row) => sum + reciprocal(row[key]), 0) / Math.max(1, rows.length);
  const gained = (row) => (row.before ?? Infinity) - (row.after ?? Infinity);
  return {
    before: mean('before'),
    after: mean('after'),
    wins: rows.filter((row) => gained(row) > 0).length,
    losses: rows.filter((row) => gained(row) < 0).length,
    ties: rows.filter((row) => row.before === row.after).length,
  };
}

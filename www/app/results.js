// The list of results, the right answers' places, and how far each moved.
import { $, el, say } from './dom.js';
import { directionOf, nameOf } from './languages.js';

const calm = matchMedia('(prefers-reduced-motion: reduce)');
const top = 10;

/** `{ text, label, kind }` of a move from one rank to another. */
export function move(from, to) {
  if (from === undefined || from === null) return { text: 'new', label: 'not ranked on the plain base', kind: 'up' };
  const by = from - to;
  if (by === 0) return { text: '=', label: 'same place as on the plain base', kind: 'same' };
  const places = `${Math.abs(by)} ${Math.abs(by) === 1 ? 'place' : 'places'}`;
  if (by > 0) return { text: `▲${by}`, label: `up ${places}, from ${from}`, kind: 'up' };
  return { text: `▼${-by}`, label: `down ${places}, from ${from}`, kind: 'down' };
}

function moveNode(from, to) {
  const { text, label, kind } = move(from, to);
  return el('span', { class: `move ${kind}`, title: label }, el('span', { 'aria-hidden': 'true', text }), el('span', { class: 'hidden', text: label }));
}

/** One passage's row; its changing parts are filled by {@link Results.show}. */
function row(passage) {
  const parts = {
    rank: el('span', { class: 'rank' }),
    moved: el('span', { class: 'moved' }),
    fresh: el('span', { class: 'badge fresh', text: `new in the top ${top}` }),
    right: el('span', { class: 'badge right', text: '✓ right answer' }),
    bar: el('span', { class: 'bar-fill' }),
    score: el('span', { class: 'score' }),
  };
  const dir = directionOf(passage.lang);
  const node = el(
    'li',
    { class: 'row', 'data-id': passage.id, 'data-lang': passage.lang },
    el('div', { class: 'place' }, parts.rank, parts.moved),
    el(
      'div',
      { class: 'what' },
      el(
        'p',
        { class: 'row-head' },
        el('abbr', { class: 'tag', title: nameOf(passage.lang), text: passage.lang }),
        el('span', { class: 'title', lang: passage.lang, dir, text: passage.title }),
        parts.right,
        parts.fresh,
      ),
      el('p', { class: 'text', lang: passage.lang, dir, text: passage.text }),
      el('p', { class: 'row-score' }, el('span', { class: 'bar', 'aria-hidden': 'true' }, parts.bar), parts.score),
    ),
  );
  return { node, parts };
}

export class Results {
  #rows = new Map();
  #shown = top;
  #last = null;

  constructor(passages) {
    this.passages = passages;
    $('more').addEventListener('click', () => {
      this.#shown += 30;
      if (this.#last) this.show(this.#last);
      // The button is gone when all is shown: focus goes to the list then.
      if ($('more').hidden) $('list').focus();
    });
    $('whole').addEventListener('change', (event) => $('list').classList.toggle('whole', event.target.checked));
  }

  clear() {
    this.#last = null;
    this.#shown = top;
    $('list').replaceChildren();
    $('more').hidden = true;
    $('answers').hidden = true;
  }

  /** Starts again at the first ten: another query was asked. */
  rewind() {
    this.#shown = top;
  }

  /** `plain` and `chosen` are rankings; `answer` is the page that answers, or null. */
  show({ plain, chosen, answer }) {
    this.#last = { plain, chosen, answer };
    const before = ranksOf(plain.order);
    const after = ranksOf(chosen.order);
    const list = $('list');
    const places = calm.matches ? null : positions(list);
    const low = chosen.scores.at(-1) ?? 0;
    const span = Math.max(1e-6, (chosen.scores[0] ?? 1) - low);
    const nodes = chosen.order.slice(0, this.#shown).map((index, i) => {
      const passage = this.passages[index];
      let entry = this.#rows.get(index);
      if (!entry) this.#rows.set(index, (entry = row(passage)));
      const { node, parts } = entry;
      const rank = i + 1;
      const from = before.get(index);
      parts.rank.textContent = rank;
      parts.moved.replaceChildren(moveNode(from, rank));
      parts.fresh.hidden = !(rank <= top && (from ?? Infinity) > top);
      parts.right.hidden = passage.page !== answer;
      node.classList.toggle('is-right', passage.page === answer);
      parts.bar.style.inlineSize = `${(((chosen.scores[i] - low) / span) * 100).toFixed(1)}%`;
      parts.score.textContent = chosen.scores[i].toFixed(3);
      return node;
    });
    list.replaceChildren(...nodes);
    list.hidden = false;
    const left = chosen.order.length - nodes.length;
    $('more').hidden = left <= 0;
    $('more').textContent = `Show ${Math.min(30, left)} more of ${chosen.order.length}`;
    if (places) glide(nodes, places);
    this.#answers(before, after, answer);
  }

  /** Where the right answer stands, in each of its languages. */
  #answers(before, after, answer) {
    const box = $('answers');
    box.hidden = false;
    if (!answer) return this.#mixture(box, before, after);
    const all = this.passages
      .map((passage, index) => ({ passage, index, rank: after.get(index), from: before.get(index) }))
      .filter(({ passage, rank }) => passage.page === answer && rank !== undefined)
      .sort((a, b) => a.rank - b.rank);
    const within = (key) => all.filter((each) => each[key] <= top).length;
    const text = `Right answer: ${within('rank')} of its ${all.length} languages in the top ${top} (plain base: ${within('from')})`;
    const pills = all.map(({ passage, rank, from }) =>
      el('li', { class: rank <= top ? 'pill in' : 'pill' }, el('abbr', { class: 'tag', title: nameOf(passage.lang), text: passage.lang }), el('span', { class: 'pill-rank', text: rank }), moveNode(from, rank)),
    );
    box.replaceChildren(el('p', { class: 'answers-text', text }), el('ul', { class: 'pills' }, ...pills));
  }

  /** Without a known answer: which languages the top ten is in, and was in on the plain base. */
  #mixture(box, before, after) {
    const counts = new Map();
    this.passages.forEach(({ lang }, index) => {
      const each = counts.get(lang) ?? counts.set(lang, { now: 0, then: 0 }).get(lang);
      if (after.get(index) <= top) each.now += 1;
      if (before.get(index) <= top) each.then += 1;
    });
    const languages = (key) => [...counts.values()].filter((each) => each[key] > 0).length;
    const text = `The top ${top} is in ${languages('now')} languages (plain base: ${languages('then')}).`;
    const pills = [...counts]
      .sort(([, a], [, b]) => b.now - a.now || b.then - a.then)
      .map(([lang, { now, then }]) => {
        const by = now === then ? '=' : now > then ? `+${now - then}` : `−${then - now}`;
        const label = `${now} of the top ${top} are in ${nameOf(lang)}, ${then} on the plain base`;
        return el(
          'li',
          { class: now > 0 ? 'pill in' : 'pill', title: label },
          el('abbr', { class: 'tag', title: nameOf(lang), text: lang }),
          el('span', { class: 'pill-rank', text: `${now}×` }),
          el('span', { class: `move ${now === then ? 'same' : now > then ? 'up' : 'down'}`, text: by }),
        );
      });
    box.replaceChildren(el('p', { class: 'answers-text', text }), el('ul', { class: 'pills' }, ...pills));
  }
}

/** Warnings and other things to know about a ranking. */
export function showNotes(notes) {
  const list = $('notes');
  list.hidden = notes.length === 0;
  list.replaceChildren(...notes.map((text) => el('li', { text })));
}

export const setStatus = (text) => say($('status'), text);

const ranksOf = (order) => new Map(order.map((index, i) => [index, i + 1]));

const positions = (list) => new Map([...list.children].map((node) => [node, node.offsetTop]));

/** Rows that stay move to their new place. */
function glide(nodes, places) {
  const tops = nodes.map((node) => node.offsetTop);
  nodes.forEach((node, i) => {
    const from = places.get(node);
    const options = { duration: 180, easing: 'ease-out' };
    if (from === undefined) {
      if (places.size > 0) node.animate([{ opacity: 0 }, { opacity: 1 }], options);
    } else if (from !== tops[i]) {
      node.animate([{ transform: `translateY(${from - tops[i]}px)` }, { transform: 'none' }], options);
    }
  });
}

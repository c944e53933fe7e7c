// Fifty fixed queries, each ranked twice: on the plain base and with the adapters that are switched on.
import { answerRank, summarize } from './compose.js';
import { $, el, isAbort, say } from './dom.js';
import { directionOf, nameOf } from './languages.js';
import { move } from './results.js';

const placeOf = (rank) => (rank === null ? '–' : String(rank));

export class Fifty {
  #controller = null;
  #done = null;

  /** `rankBoth(query, signal)` gives `{ plain, chosen }`, two orders; `describe()` says what is switched on. */
  constructor({ passages, queries, rankBoth, prepare, describe, onError, onPick }) {
    Object.assign(this, { passages, queries, rankBoth, prepare, describe, onError, onPick });
    $('fifty-run').addEventListener('click', () => (this.#controller ? this.#controller.abort() : this.run()));
    $('fifty-metric').addEventListener('change', () => this.#show());
  }

  enable(on) {
    $('fifty-run').disabled = !on;
    say($('fifty-status'), on ? 'Not run yet.' : 'Needs the model: download it above.');
  }

  /** Other adapters were chosen: the table no longer says what is switched on. */
  outdated() {
    if (!this.#done || this.#controller) return;
    say($('fifty-status'), `These figures are for ${this.#done.described}. Run again for what is switched on now.`);
  }

  async run() {
    const controller = (this.#controller = new AbortController());
    const { signal } = controller;
    const bar = $('fifty-bar');
    const described = this.describe();
    $('fifty-run').textContent = 'Stop';
    bar.hidden = false;
    bar.value = 0;
    const start = performance.now();
    const rows = [];
    try {
      say($('fifty-status'), 'Waiting until all passages are read.');
      await this.prepare(signal);
      for (const query of this.queries) {
        rows.push({ query, ...(await this.rankBoth(query, signal)) });
        bar.value = rows.length;
        say($('fifty-status'), `Query ${rows.length} of ${this.queries.length}`);
      }
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      this.#done = { rows, described };
      this.#show();
      say($('fifty-status'), `${rows.length} queries, ranked twice, in ${seconds} s, with ${described}.`);
    } catch (error) {
      say($('fifty-status'), isAbort(error) ? 'Stopped.' : 'Not finished.');
      if (!isAbort(error)) this.onError('The fifty queries could not be run.', error);
    } finally {
      this.#controller = null;
      bar.hidden = true;
      $('fifty-run').textContent = this.#done ? 'Run the fifty queries again' : 'Run the fifty queries';
    }
  }

  #show() {
    if (!this.#done) return;
    const metric = $('fifty-metric').value;
    const rows = this.#done.rows
      .map(({ query, plain, chosen }) => ({
        query,
        before: answerRank(plain, this.passages, query, metric),
        after: answerRank(chosen, this.passages, query, metric),
      }))
      .sort((a, b) => (b.before ?? 999) - (b.after ?? 999) - ((a.before ?? 999) - (a.after ?? 999)));
    const sum = summarize(rows);
    const inTop = (key) =>
      this.#done.rows.reduce((all, row) => all + row[key].slice(0, 10).filter((i) => this.passages[i].page === row.query.page).length, 0) / this.#done.rows.length;
    const figure = (name, before, after, digits) =>
      el(
        'div',
        { class: 'figure' },
        el('dt', { text: name }),
        el('dd', {}, el('span', { class: 'was', text: before.toFixed(digits) }), el('span', { class: 'arrow', 'aria-label': 'to', text: '→' }), el('strong', { text: after.toFixed(digits) })),
      );
    $('fifty-summary').replaceChildren(
      figure('Mean reciprocal rank', sum.before, sum.after, 3),
      figure('Right answers in the top ten, of ten', inTop('plain'), inTop('chosen'), 1),
      el(
        'div',
        { class: 'figure' },
        el('dt', { text: 'Wins, losses, ties' }),
        el('dd', {}, el('span', { class: 'up', text: `${sum.wins} ▲` }), el('span', { class: 'down', text: `${sum.losses} ▼` }), el('span', { class: 'same', text: `${sum.ties} =` })),
      ),
    );
    $('fifty-rows').replaceChildren(
      ...rows.map(({ query, before, after }) => {
        const { text, label, kind } = move(before, after ?? this.passages.length);
        return el(
          'tr',
          {},
          el('td', {}, el('button', { type: 'button', class: 'link', lang: query.lang, dir: directionOf(query.lang), text: query.text, onclick: () => this.onPick(query) })),
          el('td', {}, el('abbr', { class: 'tag', title: nameOf(query.lang), text: query.lang })),
          el('td', { class: 'num', text: placeOf(before) }),
          el('td', { class: 'num', text: placeOf(after) }),
          el('td', { class: 'num' }, el('span', { class: `move ${kind}`, title: label }, el('span', { 'aria-hidden': 'true', text }), el('span', { class: 'hidden', text: label }))),
        );
      }),
    );
    $('fifty-out').hidden = false;
  }
}

// One question, passages in many languages: ranked by the bare model, then with the adapters that are shipped.
// Elsewhere the import is `import { load } from 'polygraft'`; here that name is resolved by js/package.json, as Node would.
import { readFile, readdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { at, exists, runAsMain, SetupError } from './lib.mjs';

const query = 'How do I get my money back for a train ticket?';
const passages = [
  ['en', 'Tickets can be refunded in the app up to 24 hours before departure; the amount returns to your card.'],
  ['en', 'Bicycles travel free of charge outside rush hours, in the marked coaches.'],
  ['de', 'Für nicht genutzte Fahrkarten erstatten wir den Preis, wenn Sie den Antrag vor der Abfahrt stellen.'],
  ['de', 'Im Speisewagen bekommen Sie warme Gerichte, Kaffee und Kuchen.'],
  ['fr', 'Pour obtenir le remboursement de votre billet, remplissez le formulaire en ligne avant le départ du train.'],
  ['es', 'El castillo abre todos los días de nueve a seis, excepto los lunes.'],
  ['hu', 'A vonatjegy árát visszatérítjük, ha az utas az indulás előtt visszaadja a jegyet.'],
  ['hu', 'A hegyi turistautak télen csúszósak, ezért jó cipő kell.'],
  ['tr', 'Kullanılmayan tren biletlerinin ücreti, kalkıştan önce başvurulursa iade edilir.'],
  ['ru', 'Деньги за неиспользованный билет на поезд возвращают в кассе до отправления.'],
  ['ja', '発車前に窓口で手続きをすれば、列車の切符の代金は払い戻されます。'],
  ['ar', 'يمكنك استرداد ثمن تذكرة القطار إذا ألغيتها قبل موعد المغادرة.'],
  ['zh', '这家博物馆周一闭馆，其余时间免费开放。'],
  ['sw', 'Mvua kubwa inatarajiwa kunyesha kesho katika maeneo ya pwani.'],
];

function print(title, results, ms) {
  console.log(`\n${title}  (${ms.toFixed(0)} ms)`);
  for (const { index, relevance_score: score } of results) {
    if (!Number.isFinite(score)) throw new Error(`passage ${index}: the score is ${score}`);
    const [language, text] = passages[index];
    console.log(`  ${score.toFixed(4)}  ${language}  ${text}`);
  }
  if (results.length !== passages.length) throw new Error(`${results.length} results for ${passages.length} passages`);
}

await runAsMain(import.meta, async () => {
  for (const needed of ['js/dist/index.js', 'models/multilingual-e5-small']) {
    if (!(await exists(at(needed)))) throw new SetupError(`${needed} is missing`, 'Run: npm run setup');
  }
  const entry = createRequire(at('js/package.json')).resolve('polygraft');
  const { load } = await import(pathToFileURL(entry).href);
  const url = (...parts) => pathToFileURL(at(...parts));
  const start = performance.now();
  const model = await load(url('models/multilingual-e5-small/'));
  console.log(`Loaded in ${(performance.now() - start).toFixed(0)} ms\n\n“${query}”`);
  try {
    const documents = passages.map(([language, text]) => ({ language, text }));
    const ranked = async (title, adapters) => {
      const before = performance.now();
      const { results } = await model.rerank({ query, passages: documents, adapters });
      print(title, results, performance.now() - before);
    };
    await ranked('The bare model');
    if (!(await exists(at('adapters/rank-lora/adapter_config.json')))) {
      console.log('\nadapters/rank-lora is not there: no ranking with adapters');
      return;
    }
    await model.loadAdapter('rank', url('adapters/rank-lora/'));
    await ranked('With the ranking adapter', 'rank');
    const files = await readdir(at('adapters/lang/rank')).catch(() => []);
    const used = files
      .filter((name) => name.endsWith('.safetensors'))
      .map((name) => path.basename(name, '.safetensors'))
      .filter((language) => passages.some(([of]) => of === language));
    if (used.length === 0) {
      console.log('\nadapters/lang/rank has no vector of these languages: no ranking with them');
      return;
    }
    for (const language of used) {
      await model.loadAdapter(language, new Uint8Array(await readFile(at(`adapters/lang/rank/${language}.safetensors`))));
    }
    // A composition for every row: each passage with the vector of its own language and the ranking adapter.
    const of = (language) => (used.includes(language) ? `stack(${language}, rank)` : 'rank');
    await ranked(`With the ranking adapter and ${used.length} language vectors (${used.join(', ')})`, {
      query: of('en'),
      document: ({ language }) => of(language),
    });
  } finally {
    await model.dispose();
  }
});

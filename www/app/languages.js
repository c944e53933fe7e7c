// Languages: names, directions, and a guess at a query's language from its script and its commonest words.

const inEnglish = new Intl.DisplayNames('en', { type: 'language' });

/** A language's English name. */
export function nameOf(code) {
  try {
    return inEnglish.of(code) ?? code;
  } catch {
    return code;
  }
}

/** A language's name in itself. */
export function ownName(code) {
  try {
    return new Intl.DisplayNames(code, { type: 'language' }).of(code) ?? code;
  } catch {
    return code;
  }
}

const rightToLeft = new Set(['ar', 'fa', 'he', 'ur', 'ps', 'sd', 'ug', 'yi', 'dv', 'ckb']);

/** `rtl` or `ltr`. */
export function directionOf(code) {
  return rightToLeft.has(code.split('-')[0].toLowerCase()) ? 'rtl' : 'ltr';
}

// Scripts that decide alone; Han and Latin are shared.
const scripts = [
  [/\p{Script=Hangul}/u, 'ko'],
  [/[\p{Script=Hiragana}\p{Script=Katakana}]/u, 'ja'],
  [/\p{Script=Greek}/u, 'el'],
  [/\p{Script=Hebrew}/u, 'he'],
  [/[پچژگ]/u, 'fa'],
  [/\p{Script=Arabic}/u, 'ar'],
  [/\p{Script=Thai}/u, 'th'],
  [/\p{Script=Devanagari}/u, 'hi'],
  [/[іїєґ]/iu, 'uk'],
  [/\p{Script=Cyrillic}/u, 'ru'],
];

// Latin: letters that few others have, and words that few others have.
const latin = {
  hu: [/[őű]/giu, /\b(a|az|és|hogyan|hogy|nem|egy|mint|lehet|milyen|vagy|kell|meg|van)\b/giu],
  tr: [/[ğışİ]/gu, /\b(ve|bir|nasıl|için|ile|ne|mi|mı|bu|olarak|nerede|değil)\b/giu],
  de: [/[ß]|[äö](?![őű])/giu, /\b(der|die|das|und|ich|wie|ein|eine|nicht|soll|für|mit|den|im|von|zu|kann|statt|wo)\b/giu],
  es: [/[ñ¿¡]/giu, /\b(el|los|las|cómo|como|para|que|una|por|qué|con|del|quiero|un|y|dónde)\b/giu],
  fr: [/[çèêœàùî]/giu, /\b(le|les|des|une|comment|je|est|pour|dans|que|du|voudrais|et|un|où|mon|en|sur)\b/giu],
  pt: [/[ãõ]/giu, /\b(o|os|como|não|uma|para|que|em|do|da|um|com|onde)\b/giu],
  pl: [/[łąężźśćń]/giu, /\b(jak|nie|się|jest|na|do|czy|że|dla|gdzie)\b/giu],
  cs: [/[ěřů]/giu, /\b(jak|se|je|na|pro|který|kde|při)\b/giu],
  fi: [/(?:ää|yy|öö)/giu, /\b(miten|on|ja|ei|että|kuinka|voi|mikä|missä)\b/giu],
  vi: [/[ơưđạảấầẩậắằặẹẻẽếềểệịọỏốồổộớờởợụủứừửựỳỷỹ]/giu, /\b(làm|thế|nào|không|của|và|để|cho|các)\b/giu],
  en: [null, /\b(the|how|do|does|i|to|of|my|is|a|can|what|and|in|from|with|for|it|every|keep|where)\b/giu],
};

const count = (text, pattern) => (pattern ? (text.match(pattern) ?? []).length : 0);

/**
 * The likeliest language of `text`. `fallback` (the last known language) decides where nothing else does; `candidates`
 * limits the Latin ones.
 */
export function guess(text, fallback = 'en', candidates = null) {
  const query = text.trim();
  if (query === '') return fallback;
  for (const [script, code] of scripts) if (script.test(query)) return code;
  if (/\p{Script=Han}/u.test(query)) return fallback === 'ja' ? 'ja' : 'zh';
  // \b knows ASCII letters only: separate words by spaces, and let the patterns see letters as letters.
  let best = fallback;
  let most = 0;
  for (const [code, [letters, words]] of Object.entries(latin)) {
    if (candidates && !candidates.includes(code)) continue;
    const score = 2 * count(query, letters) + wordsOf(query, words) + (code === fallback ? 0.5 : 0);
    if (score > most) [best, most] = [code, score];
  }
  return most > 0.5 ? best : fallback;
}

/** How many of the query's words the pattern's list has. */
function wordsOf(query, pattern) {
  const list = new Set(pattern.source.replace(/^\\b\(|\)\\b$/g, '').split('|'));
  return query.toLowerCase().split(/[^\p{L}\p{M}]+/u).filter((word) => list.has(word)).length;
}

//! `eval`: ranking quality on a BEIR folder.

use super::rerank::sides;
use super::{drive, say_report};
use crate::args::Eval;
use crate::error::{Error, Result};
use crate::{files, load};
use polygraft::Compose;
use polygraft::backend::Backend;
use polygraft::compose::Resolved;
use polygraft::model::Side;
use polygraft::plan::Want;
use polygraft::tasks::metrics::Metrics;
use polygraft::tasks::{Encode, Engine, Item, Report, Rerank, RerankRequest, Sides, Source};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    title: Option<String>,
    text: String,
    #[serde(default)]
    lang: Option<String>,
}

/// A collection in memory.
struct Collection {
    documents: Vec<Line>,
    queries: Vec<Line>,
    /// Query → document → grade.
    grades: HashMap<usize, HashMap<usize, u32>>,
}

pub(crate) fn run(args: &Eval) -> Result<()> {
    let collection = read(&args.collection)?;
    let by_lang = args.by_lang.as_deref().map(by_lang).transpose()?;
    let mut engine = load::engine(&args.model)?;
    let chosen = choose(args, &collection, by_lang.as_ref())?;
    load::warn_unused(&args.model, &chosen.distinct.iter().collect::<Vec<_>>());
    let resolved: Vec<Resolved> =
        chosen.distinct.iter().map(|c| engine.session.resolve(c)).collect::<polygraft::Result<_>>()?;
    let crossed = chosen
        .documents
        .iter()
        .any(|&c| resolved[c].head.as_ref().is_some_and(|h| h.task == polygraft::model::HeadTask::Sequence));
    let (scores, report, scoring) = if crossed {
        (cross(&mut engine, &collection, &chosen)?, Report::default(), "head")
    } else {
        let (scores, report) = cosine(&mut engine, &collection, &chosen, &resolved)?;
        (scores, report, "cosine")
    };
    let warnings: Vec<String> = resolved.iter().flat_map(|r| r.warnings.clone()).collect();
    say_report("texts", &report, &warnings);
    let mut all = Vec::new();
    let mut by_query_lang: BTreeMap<String, Vec<Metrics>> = BTreeMap::new();
    let mut skipped = 0;
    for (query, scores) in scores.iter().enumerate() {
        let grades = collection.grades.get(&query);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let grade = |d: &usize| grades.and_then(|g| g.get(d)).copied().unwrap_or(0);
        let ranked: Vec<u32> = order.iter().map(grade).collect();
        let ideal: Vec<u32> = grades.map(|g| g.values().copied().collect()).unwrap_or_default();
        match Metrics::of(&ranked, &ideal) {
            Some(m) => {
                if let Some(lang) = &collection.queries[query].lang {
                    by_query_lang.entry(lang.clone()).or_default().push(m);
                }
                all.push(m);
            }
            None => skipped += 1,
        }
    }
    if all.is_empty() {
        return Err(Error::Content { path: args.collection.clone(), why: "no query has a relevant document".into() });
    }
    if skipped > 0 {
        eprintln!("polygraft: {skipped} queries have no relevant document and were left out");
    }
    let by_query_lang: BTreeMap<String, Metrics> =
        by_query_lang.into_iter().map(|(lang, all)| (lang, Metrics::mean(&all))).collect();
    print(args, (&Metrics::mean(&all), &by_query_lang), (all.len(), collection.documents.len()), scoring, &report);
    Ok(())
}

type Means<'a> = (&'a Metrics, &'a BTreeMap<String, Metrics>);

fn print(args: &Eval, (m, by_lang): Means<'_>, (queries, documents): (usize, usize), scoring: &str, report: &Report) {
    if args.json {
        let mut out = json!(m);
        if by_lang.len() > 1 {
            out["by_query_lang"] = json!(by_lang);
        }
        for (key, value) in [
            ("queries", json!(queries)),
            ("documents", json!(documents)),
            ("scoring", json!(scoring)),
            ("truncated", json!(report.truncated.len())),
        ] {
            out[key] = value;
        }
        println!("{out}");
        return;
    }
    println!("{queries} queries, {documents} documents");
    for (name, value) in [("ndcg@10", m.ndcg_10), ("mrr@10", m.mrr_10), ("map", m.map), ("recall@100", m.recall_100)] {
        println!("{name:<11} {value:.4}");
    }
    if by_lang.len() > 1 {
        println!("ndcg@10 by the query's language:");
        by_lang.iter().for_each(|(lang, m)| println!("  {lang:<9} {:.4}", m.ndcg_10));
    }
}

/// Which composition each text takes.
struct Chosen {
    distinct: Vec<Compose>,
    queries: Vec<usize>,
    documents: Vec<usize>,
}

fn choose(args: &Eval, collection: &Collection, by_lang: Option<&BTreeMap<String, Compose>>) -> Result<Chosen> {
    let mut distinct: Vec<Compose> = Vec::new();
    let mut find = |c: &Compose| {
        distinct.iter().position(|x| x == c).unwrap_or_else(|| {
            distinct.push(c.clone());
            distinct.len() - 1
        })
    };
    let Some(map) = by_lang else {
        let Sides { query, documents } = sides(&args.sides);
        let (query, document) = (find(&query), find(&documents[0]));
        let (queries, documents) = (vec![query; collection.queries.len()], vec![document; collection.documents.len()]);
        return Ok(Chosen { distinct, queries, documents });
    };
    let mut pick = |what: &str, line: &Line| -> Result<usize> {
        let bad = |why: String| Error::Content { path: args.collection.clone(), why };
        let lang = line
            .lang
            .as_deref()
            .ok_or_else(|| bad(format!("{what} {:?} has no `lang`, which --by-lang needs", line.id)))?;
        let compose = map.get(lang).ok_or_else(|| {
            let known: Vec<&str> = map.keys().map(String::as_str).collect();
            bad(format!(
                "{what} {:?} has lang {lang:?}, which is not in the --by-lang map ({})",
                line.id,
                known.join(", ")
            ))
        })?;
        Ok(find(compose))
    };
    let queries = collection.queries.iter().map(|l| pick("query", l)).collect::<Result<_>>()?;
    let documents = collection.documents.iter().map(|l| pick("document", l)).collect::<Result<_>>()?;
    Ok(Chosen { distinct, queries, documents })
}

/// All embeddings once, then all pairs.
fn cosine<B: Backend>(
    engine: &mut Engine<B>,
    collection: &Collection,
    chosen: &Chosen,
    resolved: &[Resolved],
) -> Result<(Vec<Vec<f32>>, Report)> {
    let spec = engine.session.spec();
    let item = |side, line: &Line, &compose: &usize| Item {
        source: Source::Text(spec.prompt(side).into(), line.body()),
        compose,
    };
    let queries = collection.queries.iter().zip(&chosen.queries).map(|(l, c)| item(Side::Query, l, c));
    let documents = collection.documents.iter().zip(&chosen.documents).map(|(l, c)| item(Side::Document, l, c));
    let items: Vec<Item> = queries.chain(documents).collect();
    let of: Vec<usize> = items.iter().map(|i| i.compose).collect();
    let want = Want { embedding: true, ..Want::default() };
    let mut task = Encode::new(items, resolved, want, engine.precision, false);
    drive("embedding", |pause| Ok((task.advance(engine, pause)?, task.progress())))?;
    let encoded = task.finish()?;
    let mut vectors: Vec<Vec<f32>> = encoded.outputs.into_iter().flatten().filter_map(|r| r.embedding).collect();
    let side = |i| if i < collection.queries.len() { Side::Query } else { Side::Document };
    vectors.iter_mut().zip(&of).enumerate().for_each(|(i, (v, &c))| resolved[c].shift(v, side(i)));
    let (queries, documents) = vectors.split_at(collection.queries.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let scores = queries.iter().map(|q| documents.iter().map(|d| dot(q, d)).collect()).collect();
    Ok((scores, encoded.report))
}

/// A cross-encoder reads every pair.
fn cross<B: Backend>(engine: &mut Engine<B>, collection: &Collection, chosen: &Chosen) -> Result<Vec<Vec<f32>>> {
    let texts: Vec<String> = collection.documents.iter().map(Line::body).collect();
    let composes: Vec<Compose> = chosen.documents.iter().map(|&c| chosen.distinct[c].clone()).collect();
    let mut out = Vec::new();
    for (query, &c) in collection.queries.iter().zip(&chosen.queries) {
        let request = RerankRequest {
            query: query.body(),
            documents: texts.clone(),
            adapters: Sides { query: chosen.distinct[c].clone(), documents: composes.clone() },
            top_n: None,
            windows: false,
            precision: None,
        };
        let mut task = Rerank::new(engine, request)?;
        drive("scoring", |pause| Ok((task.advance(engine, pause)?, task.progress())))?;
        let mut scores = vec![0.0; texts.len()];
        task.finish()?.results.iter().for_each(|r| scores[r.index] = r.relevance_score);
        out.push(scores);
    }
    Ok(out)
}

impl Line {
    /// Title, space, text, trimmed.
    fn body(&self) -> String {
        format!("{} {}", self.title.as_deref().unwrap_or(""), self.text).trim().to_owned()
    }
}

fn read(dir: &Path) -> Result<Collection> {
    let documents = jsonl(&dir.join("corpus.jsonl"))?;
    let queries = jsonl(&dir.join("queries.jsonl"))?;
    let index = |lines: &[Line]| lines.iter().enumerate().map(|(i, l)| (l.id.clone(), i)).collect::<HashMap<_, _>>();
    let (by_document, by_query) = (index(&documents), index(&queries));
    let path = dir.join("qrels").join("test.tsv");
    let mut grades: HashMap<usize, HashMap<usize, u32>> = HashMap::new();
    for (number, line) in files::text(&path)?.lines().enumerate() {
        let bad = |why: String| Error::Content { path: path.clone(), why: format!("line {}: {why}", number + 1) };
        let fields: Vec<&str> = line.split('\t').collect();
        let (query, document, grade) = match fields.as_slice() {
            [] | [""] => continue,
            ["query-id", ..] if number == 0 => continue,
            [q, d, g] | [q, _, d, g] => (*q, *d, g.trim()),
            _ => return Err(bad("expected query-id, corpus-id and score between tabs".into())),
        };
        let grade: i64 = grade.parse().map_err(|_| bad(format!("{grade:?} is not a whole number")))?;
        let q = *by_query.get(query).ok_or_else(|| bad(format!("query {query:?} is not in queries.jsonl")))?;
        let d =
            *by_document.get(document).ok_or_else(|| bad(format!("document {document:?} is not in corpus.jsonl")))?;
        grades.entry(q).or_default().insert(d, grade.clamp(0, 1000) as u32);
    }
    // BEIR's queries.jsonl holds the queries of all splits; only those that this split judges count.
    let keep: Vec<usize> = (0..queries.len()).filter(|q| grades.contains_key(q)).collect();
    let place: HashMap<usize, usize> = keep.iter().enumerate().map(|(new, &old)| (old, new)).collect();
    let mut queries: Vec<Option<Line>> = queries.into_iter().map(Some).collect();
    let queries = keep.iter().filter_map(|&old| queries[old].take()).collect();
    let grades = grades.into_iter().map(|(q, g)| (place[&q], g)).collect();
    Ok(Collection { documents, queries, grades })
}

fn jsonl(path: &Path) -> Result<Vec<Line>> {
    let mut out: Vec<Line> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (number, line) in files::text(path)?.split('\n').enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let bad = |why: String| Error::Content { path: path.into(), why: format!("line {}: {why}", number + 1) };
        let line: Line = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        if !seen.insert(line.id.clone()) {
            return Err(bad(format!("the id {:?} stands here a second time", line.id)));
        }
        out.push(line);
    }
    if out.is_empty() {
        return Err(Error::Content { path: path.into(), why: "it has no line".into() });
    }
    Ok(out)
}

fn by_lang(path: &Path) -> Result<BTreeMap<String, Compose>> {
    let bad = |why: String| Error::Content { path: path.into(), why };
    let map: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&files::text(path)?).map_err(|e| bad(format!("expected {{\"hu\": \"hu\", …}}: {e}")))?;
    map.into_iter().map(|(lang, value)| Ok((lang, Compose::from_json(&value)?))).collect()
}

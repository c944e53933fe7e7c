//! Prompt tuning, P-tuning and multitask prompt tuning: vectors that stand before a row's words. What made them (an MLP,
//! an LSTM) was applied when they were saved.

use super::family::{Family, Reader};
use super::keys::MODEL;
use super::reading::Reading;
use crate::error::Result;
use polygraft::ir::{Op, Positions, Prompt, RowChange, Site};
use polygraft::tensor::Matrix;

const PROMPT: Family = Family {
    root: MODEL,
    targets: Some(&[]),
    ops: "prompt",
    merges: false,
    base: false,
    reader: Reader::Load(load),
    ..Family::new("PROMPT_TUNING", "prompt tuning", "Prompt tuning (Lester et al. 2021, arXiv 2104.08691)")
};

/// Prompt tuning's row.
pub(super) const FAMILY: Family = Family {
    reads: super::prefix::SHAPE,
    silent: &["prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path"],
    ..PROMPT
};

/// P-tuning's row.
pub(super) const P_TUNING: Family = Family {
    peft_type: "P_TUNING",
    name: "p-tuning",
    paper: "P-tuning (Liu et al. 2021, arXiv 2103.10385)",
    reads: super::prefix::SHAPE,
    silent: &["encoder_dropout", "encoder_hidden_size", "encoder_num_layers", "encoder_reparameterization_type"],
    ..PROMPT
};

/// Multitask prompt tuning's row.
pub(super) const MULTITASK: Family = Family {
    peft_type: "MULTITASK_PROMPT_TUNING",
    name: "multitask prompt tuning",
    paper: "Multitask prompt tuning (Wang et al. 2023, arXiv 2303.02861)",
    reads: &[
        "num_attention_heads",
        "num_layers",
        "num_ranks",
        "num_tasks",
        "num_transformer_submodules",
        "num_virtual_tokens",
        "token_dim",
    ],
    silent: &[
        "prompt_tuning_init",
        "prompt_tuning_init_state_dict_path",
        "prompt_tuning_init_task",
        "prompt_tuning_init_text",
        "tokenizer_kwargs",
        "tokenizer_name_or_path",
    ],
    task: true,
    reader: Reader::Load(load_multitask),
    ..PROMPT
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let width = r.spec.embedding;
    let tokens = r.virtual_tokens(&[("token_dim", width)])?;
    if let Some(vectors) = r.own("prompt_embeddings", &[tokens, width])? {
        add(r, tokens, vectors);
    }
    Ok(())
}

/// The prompt of a task is the shared one times a low-rank matrix of the task's, element by element.
fn load_multitask(r: &mut Reading<'_>) -> Result<()> {
    let width = r.spec.embedding;
    let tokens = r.virtual_tokens(&[("token_dim", width)])?;
    let (tasks, ranks) = (r.config.count("num_tasks", 1)?, r.config.count("num_ranks", 1)?);
    let task = r.task(tasks)?;
    let vectors = r.own("prompt_embeddings", &[tokens, width])?;
    let cols = r.own("prefix_task_cols", &[tasks, tokens, ranks])?;
    let rows = r.own("prefix_task_rows", &[tasks, ranks, width])?;
    let Some((mut vectors, (cols, rows))) = vectors.zip(cols.zip(rows)) else { return Ok(()) };
    let of_task = |all: &[f32]| all[all.len() / tasks * task..][..all.len() / tasks].to_vec();
    let factors = crate::dense::product(&of_task(&cols), &of_task(&rows), ranks, width);
    vectors.iter_mut().zip(&factors).for_each(|(v, f)| *v *= f);
    add(r, tokens, vectors);
    Ok(())
}

fn add(r: &mut Reading<'_>, tokens: usize, vectors: Vec<f32>) {
    let Some(vectors) = Matrix::dense(tokens, r.spec.embedding, vectors) else { return };
    let virtual_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    // The library embeds the row itself then, and counts positions as for any sequence of vectors.
    let positions = Positions::Sequence;
    r.rows = RowChange { virtual_tokens, positions, drops_types: r.drops_types(), ..RowChange::default() };
    r.patch(Site::Word, Op::Prompt(Prompt { vectors }));
}

//! The text of shaders without comments and indentation, made while compiling: they are a part of what a browser
//! downloads. WGSL has no texts, so two slashes are always a comment.

/// Whether byte `i` of `text` is kept.
const fn kept(text: &[u8], i: usize, comment: bool, begun: bool) -> bool {
    match text[i] {
        _ if comment => false,
        b'/' if i + 1 < text.len() && text[i + 1] == b'/' => false,
        b' ' | b'\n' => begun,
        _ => true,
    }
}

/// Bytes of [`text`].
pub(crate) const fn length(text: &str) -> usize {
    let (text, mut i, mut n, mut comment, mut begun) = (text.as_bytes(), 0, 0, false, false);
    while i < text.len() {
        let newline = text[i] == b'\n';
        comment = !newline && (comment || (text[i] == b'/' && i + 1 < text.len() && text[i + 1] == b'/'));
        if kept(text, i, comment, begun) {
            n += 1;
            begun = true;
        }
        begun = begun && !newline;
        i += 1;
    }
    n
}

/// `source` without what [`length`] does not count.
pub(crate) const fn text<const N: usize>(source: &str) -> [u8; N] {
    let (source, mut i, mut n, mut comment, mut begun) = (source.as_bytes(), 0, 0, false, false);
    let mut out = [b' '; N];
    while i < source.len() {
        let newline = source[i] == b'\n';
        comment = !newline && (comment || (source[i] == b'/' && i + 1 < source.len() && source[i + 1] == b'/'));
        if kept(source, i, comment, begun) {
            out[n] = source[i];
            n += 1;
            begun = true;
        }
        begun = begun && !newline;
        i += 1;
    }
    out
}

/// The bytes as text.
#[allow(clippy::panic, reason = "while compiling, where it is an error of the build")]
pub(crate) const fn checked(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a shader's text was cut inside a character"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_comments_and_indentation_go() {
        const TEXT: &str = "// header → (1 of 8)\n\nfn f() { // why\n    let x = a / b;\n\n}\n";
        const BARE: [u8; length(TEXT)] = text(TEXT);
        assert_eq!(checked(&BARE), "fn f() { \nlet x = a / b;\n}\n");
    }

    #[test]
    fn every_shader_means_the_same() {
        for variant in crate::variants::VARIANTS {
            let sources: Vec<String> = variant.sources.iter().map(|s| plain(s)).collect();
            for (source, bare) in variant.sources.iter().zip(&sources) {
                assert_eq!(length(source), bare.len(), "{}", variant.name);
                assert!(bare.len() < source.len());
            }
        }
    }

    /// The same, line by line.
    fn plain(source: &str) -> String {
        let code = source.lines().map(|l| l.split("//").next().unwrap_or(l).trim_start_matches(' '));
        code.filter(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect()
    }
}

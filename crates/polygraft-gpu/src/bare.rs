//! The text of shaders without comments and space that separates no words, made while compiling: they are a part of what a
//! browser downloads. WGSL has no texts, so two slashes are always a comment.

/// Whether `byte` can stand in a name or a number: two of these need a space between them.
const fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Writes what is kept of `text` as far as `out` reaches; how many bytes that is.
const fn strip(text: &[u8], out: &mut [u8]) -> usize {
    let (mut i, mut n, mut comment, mut space, mut last) = (0, 0, false, false, b' ');
    while i < text.len() {
        let byte = text[i];
        comment = byte != b'\n' && (comment || (byte == b'/' && i + 1 < text.len() && text[i + 1] == b'/'));
        if comment || byte == b' ' || byte == b'\n' {
            space = true;
        } else {
            if space && word(last) && word(byte) {
                if n < out.len() {
                    out[n] = b' ';
                }
                n += 1;
            }
            if n < out.len() {
                out[n] = byte;
            }
            n += 1;
            (last, space) = (byte, false);
        }
        i += 1;
    }
    n
}

/// Bytes of [`text`].
pub(crate) const fn length(text: &str) -> usize {
    strip(text.as_bytes(), &mut [])
}

/// `source` without what [`length`] does not count.
pub(crate) const fn text<const N: usize>(source: &str) -> [u8; N] {
    let mut out = [b' '; N];
    strip(source.as_bytes(), &mut out);
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
    fn only_comments_and_spare_space_go() {
        const TEXT: &str = "// header → (1 of 8)\n\nfn f() { // why\n    let x = a / b;\n    return\n}\n";
        const BARE: [u8; length(TEXT)] = text(TEXT);
        assert_eq!(checked(&BARE), "fn f(){let x=a/b;return}");
    }

    #[test]
    fn every_shader_means_the_same() {
        // Signs that mean something else when they stand together.
        const PAIRS: [&str; 14] = ["--", "++", "&&", "||", "<<", ">>", "==", "!=", "<=", ">=", "->", "+=", "-=", "//"];
        for variant in crate::variants::VARIANTS {
            for source in variant.sources {
                for line in source.lines().map(|line| line.split("//").next().unwrap_or(line)) {
                    for (i, _) in line.match_indices(' ') {
                        let (before, after) =
                            (line[..i].trim_end().chars().last(), line[i..].trim_start().chars().next());
                        let pair: String = before.into_iter().chain(after).collect();
                        assert!(!PAIRS.contains(&pair.as_str()), "{}: {line}", variant.name);
                    }
                }
            }
            let text: String = variant.sources.iter().map(|s| stripped(s)).collect();
            let text = crate::pipelines::with_constants(text, [("FORM", 3), ("D", 8), ("X", 16)].into_iter());
            let parsed = naga::front::wgsl::parse_str(&text);
            parsed.unwrap_or_else(|e| panic!("{}: {}", variant.name, e.emit_to_string(&text)));
        }
    }

    fn stripped(source: &str) -> String {
        let mut out = vec![b' '; length(source)];
        strip(source.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }
}

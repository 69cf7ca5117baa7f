//! `--env-file`: lines of NAME=value.
//!
//! Invariant: a line is read in the one way in which every reader of such files would, or it is an
//! error with its number. Nothing of a value is shown.

use dayfly_api::is_variable_name;

/// A line's name and value.
pub(super) type Line = (String, String);

/// What is wrong with which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) reason: &'static str,
}

/// Reads the lines of a file. Empty ones and those that begin with `#` say nothing.
pub(super) fn parse(text: &str) -> Result<Vec<Line>, Fault> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let fault = |reason| Fault { line: index + 1, reason };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let (name, value) = line.split_once('=').ok_or(fault("is not NAME=value"))?;
        if !is_variable_name(name) {
            return Err(fault("has a NAME that is not letters, digits and `_`"));
        }
        if lines.iter().any(|(other, _)| other == name) {
            return Err(fault("sets a variable that an earlier line sets"));
        }
        lines.push((name.to_owned(), value_of(value.trim_start()).map_err(fault)?));
    }
    Ok(lines)
}

fn value_of(text: &str) -> Result<String, &'static str> {
    if text.contains('\0') {
        return Err("has a NUL");
    }
    if let Some(rest) = text.strip_prefix('\'') {
        let value = rest.strip_suffix('\'').ok_or("does not end with its quote")?;
        return if value.contains('\'') {
            Err("has a quote within quotes")
        } else {
            Ok(value.to_owned())
        };
    }
    match text.strip_prefix('"') {
        Some(rest) => quoted(rest),
        None if text.contains(['"', '\'', '\\', '`', '$', '#']) => {
            Err("has a character that readers differ on; put the value into single quotes")
        }
        None => Ok(text.to_owned()),
    }
}

fn quoted(rest: &str) -> Result<String, &'static str> {
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next().ok_or("does not end with its quote")? {
            '"' if chars.as_str().is_empty() => return Ok(value),
            '"' => return Err("goes on after its quote"),
            '\\' => value.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(escaped @ ('"' | '\\' | '$' | '`')) => escaped,
                _ => return Err("has a backslash before none of \\ \" $ ` n r t"),
            }),
            '$' | '`' => {
                return Err("has $ or ` in double quotes; nothing is expanded, use single quotes");
            }
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_names_and_values() {
        let text = "\n# comment\nA=1\n  export B = x\nB2= two words \nC='$x \"y\" # z'\r\n\
                    D=\"a\\nb\\\"\\\\\\$\"\nE=\nF=dayfly://pg-read/password\nG=a=b\n";
        let fault = parse(text).unwrap_err();
        assert_eq!(
            fault,
            Fault { line: 4, reason: "has a NAME that is not letters, digits and `_`" }
        );
        let text = text.replace("B = x", "B=x");
        let expected = [
            ("A", "1"),
            ("B", "x"),
            ("B2", "two words"),
            ("C", "$x \"y\" # z"),
            ("D", "a\nb\"\\$"),
            ("E", ""),
            ("F", "dayfly://pg-read/password"),
            ("G", "a=b"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(&text).unwrap(), expected);
    }

    #[test]
    fn what_readers_differ_on_is_refused_with_its_line() {
        for bad in [
            "A",
            "1A=x",
            "=x",
            "A='x",
            "A='x'y'",
            "A=\"x",
            "A=\"x\" # y",
            "A=\"$HOME\"",
            "A=$HOME",
            "A=x # y",
            "A=x\\n",
            "A=\"\\x\"",
            "A=it's",
            "A=x\0y",
            "A=\"x\\",
            "Z=2",
        ] {
            let fault = parse(&format!("Z=1\n\n{bad}\n")).unwrap_err();
            assert_eq!(fault.line, 3, "{bad}: {fault:?}");
        }
    }
}

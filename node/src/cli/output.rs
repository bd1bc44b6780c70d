//! What is printed, where, and in which colours.
//!
//! Answers go to stdout in one piece; a reader that has gone away (`quorate status | head -1`) is no error. Colours only on a terminal and
//! without `NO_COLOR`. Text that comes from the store is escaped before it reaches a terminal: it could move the cursor or worse.

use super::error::{CliError, plain};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts; fields stay.
    Json,
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Less important.
    Faint,
}

/// Where answers and complaints go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// The form of answers.
    pub(crate) output: Output,
    /// Whether somebody looks at stdout.
    pub(crate) is_terminal: bool,
    colours: bool,
    error_colours: bool,
}

impl Terminal {
    /// Looks at this process's stdout, stderr and environment.
    pub(crate) fn detect(output: Output) -> Terminal {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let is_terminal = io::stdout().is_terminal();
        Terminal {
            output,
            is_terminal,
            colours: wanted && is_terminal,
            error_colours: wanted && io::stderr().is_terminal(),
        }
    }

    /// One without a terminal, as in a pipe.
    #[cfg(test)]
    pub(crate) fn piped(output: Output) -> Terminal {
        Terminal {
            output,
            is_terminal: false,
            colours: false,
            error_colours: false,
        }
    }

    /// Whether the answer is to be JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Text in a colour, if there are colours.
    pub(crate) fn paint(&self, ink: Ink, text: &str) -> String {
        paint(self.colours, ink, text)
    }

    /// Prints bytes to stdout as they are.
    pub(crate) fn print(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(plain(format!("cannot write to stdout: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Prints one JSON document and a newline.
    pub(crate) fn print_json(&self, document: &impl Serialize) -> Result<(), CliError> {
        let mut text = serde_json::to_string(document).map_err(plain)?;
        text.push('\n');
        self.print(text.as_bytes())
    }

    /// Tells on stderr why a command failed.
    pub(crate) fn complain(&self, error: &CliError) {
        if self.is_json() {
            eprintln!("{}", error.json());
            return;
        }
        eprintln!("{} {}", paint(self.error_colours, Ink::Bad, "error:"), error.message);
        if let Some(hint) = &error.hint {
            eprintln!("{} {hint}", paint(self.error_colours, Ink::Faint, "hint:"));
        }
    }
}

fn paint(colours: bool, ink: Ink, text: &str) -> String {
    let code = match ink {
        Ink::Good => 32,
        Ink::Bad => 31,
        Ink::Faint => 2,
    };
    if colours {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Columns of text, left-aligned, with a header.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let lines = || std::iter::once(&header).chain(rows);
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            lines()
                .filter_map(|line| line.get(column))
                .map(|cell| visible(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines() {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _infallible = write!(row, "{cell}{:1$}", "", width - visible(cell) + 2);
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// How many columns a cell takes: escape sequences of colours take none.
fn visible(cell: &str) -> usize {
    let mut columns = 0;
    let mut characters = cell.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => while characters.next().is_some_and(|c| c != 'm') {},
            _ => columns += 1,
        }
    }
    columns
}

/// Text from the store, made harmless for a terminal: control characters are escaped, newlines and tabs stay.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// A count of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    let units = [
        (1u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match units.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} B"),
    }
}

/// Seconds as people read them: `42s`, `3m07s`, `5h12m`, `9d03h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_colours_take_no_room() {
        let coloured = paint(true, Ink::Good, "up");
        let rows = [
            vec!["n1".into(), coloured.clone(), "1".into()],
            vec!["node-2".into(), "down".into(), "2".into()],
        ];
        let expected = format!("NODE    STATE  N\nn1      {coloured}     1\nnode-2  down   2\n");
        assert_eq!(table(&["NODE", "STATE", "N"], &rows), expected);
    }

    #[test]
    fn text_from_the_store_cannot_drive_the_terminal() {
        assert_eq!(harmless("a\tb\nc\x1b[31m\u{9b}\r"), "a\tb\nc\\u{1b}[31m\\u{9b}\\r");
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)].join(" "),
            "0 B 1023 B 1.5 KiB 5.0 GiB"
        );
        let times = [duration(5), duration(187), duration(18_720), duration(788_400)];
        assert_eq!(times.join(" "), "5s 3m07s 5h12m 9d03h");
    }
}

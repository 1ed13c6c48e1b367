//! Names of keys as tmux has them, and the bytes that xterm sends for them.
//!
//! Like `tmux send-keys`: what is no name of a key is text.

/// Bytes that one call may type.
pub(crate) const KEYS_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Modifiers {
    shift: bool,
    meta: bool,
    control: bool,
}

impl Modifiers {
    /// As xterm numbers them; 1 is none.
    fn number(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.meta) + 4 * u8::from(self.control)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// One character, from the keyboard's main part.
    Char(char),
    /// `ESC [ A`, in application mode `ESC O A`, with modifiers `ESC [ 1 ; 5 A`.
    Cursor(char),
    /// `ESC O P`, with modifiers `ESC [ 1 ; 5 P`.
    Function(char),
    /// `ESC [ 5 ~`, with modifiers `ESC [ 5 ; 5 ~`.
    Tilde(u8),
    BackTab,
}

/// All of `keys` as one stream of bytes; `None` if that is more than may be typed at once.
pub(crate) fn encode(keys: &[String], literal: bool, application_cursor: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for key in keys {
        match parse(key).filter(|_| !literal) {
            Some((key, modifiers)) => put(&mut bytes, key, modifiers, application_cursor),
            None => bytes.extend_from_slice(key.as_bytes()),
        }
        if bytes.len() > KEYS_BYTES_MAX {
            return None;
        }
    }
    Some(bytes)
}

fn parse(text: &str) -> Option<(Key, Modifiers)> {
    let mut modifiers = Modifiers::default();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('^').filter(|it| !it.is_empty()) {
        modifiers.control = true;
        rest = after;
    }
    // A modifier needs something to modify: `C-` alone is text, and `C--` is control and minus.
    while let [modifier, b'-', _, ..] = rest.as_bytes() {
        match modifier.to_ascii_uppercase() {
            b'C' => modifiers.control = true,
            b'M' => modifiers.meta = true,
            b'S' => modifiers.shift = true,
            _ => return None,
        }
        rest = &rest[2..];
    }
    let mut chars = rest.chars();
    let key = match (chars.next(), chars.next()) {
        (Some(only), None) => Key::Char(only),
        _ => named(rest)?,
    };
    Some((key, modifiers))
}

fn named(name: &str) -> Option<Key> {
    let key = match &*name.to_ascii_lowercase() {
        "enter" | "kpenter" => Key::Char('\r'),
        "escape" | "esc" => Key::Char('\x1b'),
        "tab" => Key::Char('\t'),
        "btab" => Key::BackTab,
        "space" => Key::Char(' '),
        "bspace" => Key::Char('\x7f'),
        "up" => Key::Cursor('A'),
        "down" => Key::Cursor('B'),
        "right" => Key::Cursor('C'),
        "left" => Key::Cursor('D'),
        "home" => Key::Cursor('H'),
        "end" => Key::Cursor('F'),
        "ic" | "insert" => Key::Tilde(2),
        "dc" | "delete" => Key::Tilde(3),
        "ppage" | "pageup" | "pgup" => Key::Tilde(5),
        "npage" | "pagedown" | "pgdn" => Key::Tilde(6),
        "f1" => Key::Function('P'),
        "f2" => Key::Function('Q'),
        "f3" => Key::Function('R'),
        "f4" => Key::Function('S'),
        "f5" => Key::Tilde(15),
        "f6" => Key::Tilde(17),
        "f7" => Key::Tilde(18),
        "f8" => Key::Tilde(19),
        "f9" => Key::Tilde(20),
        "f10" => Key::Tilde(21),
        "f11" => Key::Tilde(23),
        "f12" => Key::Tilde(24),
        other => {
            let mut keypad = other.strip_prefix("kp")?.chars();
            let key = keypad.next().filter(|it| "0123456789+-*/.".contains(*it))?;
            keypad.as_str().is_empty().then_some(Key::Char(key))?
        }
    };
    Some(key)
}

fn put(bytes: &mut Vec<u8>, key: Key, modifiers: Modifiers, application_cursor: bool) {
    let number = modifiers.number();
    let sequence = match key {
        Key::Char('\t') if modifiers.shift => "\x1b[Z".to_owned(),
        Key::Char(char) => {
            if modifiers.meta {
                bytes.push(b'\x1b');
            }
            shifted(char, modifiers).to_string()
        }
        Key::BackTab => "\x1b[Z".to_owned(),
        Key::Cursor(end) if number > 1 => format!("\x1b[1;{number}{end}"),
        Key::Cursor(end) if application_cursor => format!("\x1bO{end}"),
        Key::Cursor(end) => format!("\x1b[{end}"),
        Key::Function(end) if number > 1 => format!("\x1b[1;{number}{end}"),
        Key::Function(end) => format!("\x1bO{end}"),
        Key::Tilde(code) if number > 1 => format!("\x1b[{code};{number}~"),
        Key::Tilde(code) => format!("\x1b[{code}~"),
    };
    bytes.extend_from_slice(sequence.as_bytes());
}

/// What a terminal makes of a character with Control or Shift held down. Where it makes nothing of
/// it, the character itself.
fn shifted(char: char, modifiers: Modifiers) -> char {
    if modifiers.control {
        return match char {
            'a'..='z' | 'A'..='Z' => char::from(char as u8 & 0x1f),
            '@' | ' ' | '2' => '\0',
            '[' | '3' => '\x1b',
            '\\' | '4' => '\x1c',
            ']' | '5' => '\x1d',
            '^' | '6' => '\x1e',
            '_' | '/' | '-' | '7' => '\x1f',
            '?' | '8' => '\x7f',
            '\x7f' => '\x08',
            other => other,
        };
    }
    if modifiers.shift { char.to_ascii_uppercase() } else { char }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(key: &str) -> String {
        String::from_utf8(encode(&[key.to_owned()], false, false).unwrap()).unwrap()
    }

    #[test]
    fn names_are_the_keys_that_tmux_knows_by_them() {
        for (key, bytes) in [
            ("Enter", "\r"),
            ("enter", "\r"),
            ("Escape", "\x1b"),
            ("Esc", "\x1b"),
            ("Tab", "\t"),
            ("BTab", "\x1b[Z"),
            ("S-Tab", "\x1b[Z"),
            ("Space", " "),
            ("BSpace", "\x7f"),
            ("C-BSpace", "\x08"),
            ("M-BSpace", "\x1b\x7f"),
            ("Up", "\x1b[A"),
            ("Down", "\x1b[B"),
            ("Right", "\x1b[C"),
            ("Left", "\x1b[D"),
            ("Home", "\x1b[H"),
            ("End", "\x1b[F"),
            ("PageUp", "\x1b[5~"),
            ("PPage", "\x1b[5~"),
            ("NPage", "\x1b[6~"),
            ("PageDown", "\x1b[6~"),
            ("IC", "\x1b[2~"),
            ("Insert", "\x1b[2~"),
            ("DC", "\x1b[3~"),
            ("Delete", "\x1b[3~"),
            ("F1", "\x1bOP"),
            ("F4", "\x1bOS"),
            ("F5", "\x1b[15~"),
            ("F12", "\x1b[24~"),
            ("KP7", "7"),
            ("KPEnter", "\r"),
        ] {
            assert_eq!(typed(key), bytes, "{key}");
        }
    }

    #[test]
    fn modifiers_change_what_a_key_sends() {
        for (key, bytes) in [
            ("C-c", "\x03"),
            ("C-C", "\x03"),
            ("^C", "\x03"),
            ("^c", "\x03"),
            ("c-d", "\x04"),
            ("C-Space", "\0"),
            ("C-@", "\0"),
            ("C-[", "\x1b"),
            ("C-\\", "\x1c"),
            ("^\\", "\x1c"),
            ("C-]", "\x1d"),
            ("C-_", "\x1f"),
            ("C--", "\x1f"),
            ("C-?", "\x7f"),
            ("M-x", "\x1bx"),
            ("M-Enter", "\x1b\r"),
            ("C-M-x", "\x1b\x18"),
            ("M-C-x", "\x1b\x18"),
            ("S-a", "A"),
            ("S-Up", "\x1b[1;2A"),
            ("M-Up", "\x1b[1;3A"),
            ("C-Up", "\x1b[1;5A"),
            ("C-M-S-Left", "\x1b[1;8D"),
            ("C-F1", "\x1b[1;5P"),
            ("S-F5", "\x1b[15;2~"),
            ("C-PageUp", "\x1b[5;5~"),
            ("M-é", "\x1bé"),
        ] {
            assert_eq!(typed(key), bytes, "{key}");
        }
    }

    #[test]
    fn what_is_no_key_is_text() {
        for text in [
            "echo hello",
            "",
            "^",
            "C-",
            "C-foo",
            "X-a",
            "F13",
            "KP",
            "KPx",
            "Enter ",
            "äöü",
            "a-b",
        ] {
            assert_eq!(typed(text), text);
        }
    }

    #[test]
    fn literal_keys_are_text_also_where_they_look_like_a_name() {
        let keys = ["Enter", "C-c", "x"].map(str::to_owned);
        assert_eq!(encode(&keys, true, false).unwrap(), b"EnterC-cx");
        assert_eq!(encode(&keys, false, false).unwrap(), b"\r\x03x");
    }

    #[test]
    fn the_application_may_want_its_own_cursor_keys() {
        for (key, bytes) in
            [("Up", "\x1bOA"), ("Home", "\x1bOH"), ("C-Up", "\x1b[1;5A"), ("PageUp", "\x1b[5~")]
        {
            let typed = encode(&[key.to_owned()], false, true).unwrap();
            assert_eq!(typed, bytes.as_bytes(), "{key}");
        }
    }

    #[test]
    fn keys_are_taken_up_to_the_limit_and_not_one_byte_past_it() {
        let most = "x".repeat(KEYS_BYTES_MAX);
        assert_eq!(
            encode(std::slice::from_ref(&most), false, false).unwrap().len(),
            KEYS_BYTES_MAX
        );
        assert_eq!(encode(&[most, "x".to_owned()], false, false), None);
    }
}

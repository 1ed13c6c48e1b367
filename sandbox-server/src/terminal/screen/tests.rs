use super::*;
use proptest::prelude::*;

fn size(rows: u16, cols: u16) -> Size {
    Size::new(rows, cols).unwrap()
}

fn screen(rows: u16, cols: u16, printed: &str) -> Screen {
    let mut screen = Screen::new(size(rows, cols));
    screen.feed(printed.as_bytes());
    screen.check();
    screen
}

fn shown(rows: u16, cols: u16, printed: &str) -> String {
    screen(rows, cols, printed).visible(usize::MAX).text
}

#[test]
fn what_is_printed_is_shown_where_it_was_printed_to() {
    for (printed, text) in [
        ("", ""),
        ("one\r\ntwo", "one\ntwo"),
        ("one\ntwo", "one\n   two"),
        ("abcdefghijkl", "abcdefghij\nkl"),
        ("abcdefghij\r\nk", "abcdefghij\nk"),
        ("\x1b[?7labcdefghijkl", "abcdefghil"),
        ("a\r\nb\r\nc\r\nd\r\ne", "b\nc\nd\ne"),
        ("ab\x08c", "ac"),
        ("a\tb", "a       b"),
        ("\x1b[3ga\tb", "a        b"),
        ("\x1b[3;4Hx\x1b[Hy", "y\n\n   x"),
        ("\x1b[99;99Hx", "\n\n\n         x"),
        ("abc\x1b[2DX", "aXc"),
        ("abc\x1b[A\x1b[CX", "abc X"),
        ("a\x1b[BX\x1b[2AY", "a Y\n X"),
        ("abc\x1b[1;2H\x1b[@X", "aXbc"),
        ("abc\x1b[1;2H\x1b[4hX", "aXbc"),
        ("abcd\x1b[1;2H\x1b[2P", "ad"),
        ("abcd\x1b[1;2H\x1b[2X", "a  d"),
        ("abcd\x1b[1;2H\x1b[K", "a"),
        ("abcd\x1b[1;2H\x1b[1K", "  cd"),
        ("ab\r\ncd\x1b[2K", "ab"),
        ("ab\r\ncd\r\nef\x1b[2;2H\x1b[J", "ab\nc"),
        ("ab\r\ncd\r\nef\x1b[2;2H\x1b[1J", "\n\nef"),
        ("ab\r\ncd\x1b[2J", ""),
        ("a\r\nb\x1b[1;1H\x1b[L", "\na\nb"),
        ("a\r\nb\x1b[1;1H\x1b[M", "b"),
        ("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\nx", "1\n3\nx\n4"),
        ("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[2;1H\x1bMx", "1\nx\n2\n4"),
        ("1\r\n2\x1b[S", "2"),
        ("1\r\n2\x1b[T", "\n1\n2"),
        ("\x1b[2;3r\x1b[?6h\x1b[1;1Hx\x1b[9;1Hy", "\nx\ny"),
        ("a\x1b7\x1b[3;3Hb\x1b8c", "ac\n\n  b"),
        ("-\x1b[4b", "-----"),
        ("\x1b(0lqk\x1b(B q", "┌─┐ q"),
        ("\x1b)0\x0eq\x0fq", "─q"),
        ("a\x1bEb\x1bDc", "a\nb\n c"),
        ("\x1b[31;1mred\x1b[m", "red"),
        ("a\x1b[?1049h\x1b[Hb", "b"),
        ("a\x1b[?1049hb\x1b[?1049lc", "ac"),
        ("a\x1bcb", "b"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1bP1;2|secret\x1b\\x", "x"),
    ] {
        assert_eq!(shown(4, 10, printed), text, "{printed:?}");
    }
}

#[test]
fn wide_characters_and_marks_take_the_room_that_they_take() {
    for (printed, text) in [
        ("你好", "你好"),
        ("你\x1b[1;2Hx", " x"),
        ("你\x1b[1;1Hx", "x"),
        ("abc你", "abc\n你"),
        ("e\u{301}x", "e\u{301}x"),
        ("abcd\u{301}e", "abcd\u{301}\ne"),
        ("你\u{301}", "你\u{301}"),
        ("\u{301}", ""),
    ] {
        assert_eq!(shown(3, 4, printed), text, "{printed:?}");
    }
    assert_eq!(shown(3, 1, "你x"), "你\nx");
    let mut split = Screen::new(size(2, 10));
    for byte in "né你".as_bytes() {
        split.feed(&[*byte]);
    }
    assert_eq!(split.visible(100).text, "né你");
}

#[test]
fn questions_are_answered() {
    for (printed, answer) in [
        ("ab\r\nc\x1b[6n", "\x1b[2;2R"),
        ("\x1b[?6n", "\x1b[?1;1R"),
        ("\x1b[2;3r\x1b[?6h\x1b[2;2H\x1b[6n", "\x1b[2;2R"),
        ("\x1b[5n", "\x1b[0n"),
        ("\x1b[c", "\x1b[?1;2c"),
        ("\x1b[>c", "\x1b[>0;95;0c"),
        ("\x1b[18t", "\x1b[8;4;10t"),
        ("plain", ""),
    ] {
        let mut screen = screen(4, 10, printed);
        assert_eq!(String::from_utf8(screen.take_answers()).unwrap(), answer, "{printed:?}");
        assert_eq!(screen.take_answers(), b"");
    }
    let mut screen = screen(4, 10, &"\x1b[6n".repeat(100_000));
    assert!(screen.take_answers().len() <= 4_096);
}

#[test]
fn what_scrolls_off_is_in_the_scrollback_and_not_of_the_alternate_screen() {
    let mut screen = screen(2, 10, "1\r\n2\r\n3\r\n4");
    assert_eq!(screen.entire(100).text, "1\n2\n3\n4");
    screen.feed(b"\x1b[?1049ha\r\nb\r\nc\r\nd");
    assert!(screen.is_alternate());
    assert_eq!(screen.entire(100).text, "1\n2\nc\nd");
    screen.feed(b"\x1b[?1049l");
    assert!(!screen.is_alternate());
    assert_eq!(screen.entire(100).text, "1\n2\n3\n4");
    screen.feed(b"\x1b[3J");
    assert_eq!(screen.entire(100).text, "3\n4");
}

#[test]
fn a_capture_that_is_too_long_keeps_its_end_and_says_what_it_left_out() {
    let screen = screen(3, 10, "one\r\ntwo\r\nthree\r\nfour");
    for (max, text, lines_cut) in [
        (18, "one\ntwo\nthree\nfour", 0),
        (17, "two\nthree\nfour", 1),
        (4, "four", 3),
        (2, "ur", 4),
    ] {
        assert_eq!(screen.entire(max), Shown { text: text.to_owned(), lines_cut }, "{max}");
    }
    assert_eq!(screen.entire(0).text, "");
    let mut flooded = Screen::new(size(2, 10));
    flooded.feed("x\r\n".repeat(history::LINES_MAX + 6).as_bytes());
    assert_eq!(flooded.entire(usize::MAX).lines_cut, 5);
}

#[test]
fn a_resized_screen_keeps_the_lines_round_the_cursor() {
    let mut screen = screen(4, 10, "one\r\ntwo\r\nthree\r\nfour");
    screen.resize(size(2, 10));
    assert_eq!(screen.visible(100).text, "three\nfour");
    assert_eq!(screen.entire(100).text, "one\ntwo\nthree\nfour");
    assert_eq!(screen.cursor(), (1, 4));
    screen.resize(size(4, 3));
    screen.check();
    assert_eq!(screen.visible(100).text, "thr\nfou");
    screen.feed(b"x\r\ny");
    assert_eq!(screen.visible(100).text, "thr\nfox\ny");
    let mut screen = self::screen(4, 10, "one\r\n\r\n\r\nfour\x1b[1;1H");
    screen.resize(size(2, 10));
    assert_eq!(screen.entire(100).text, "one");
}

#[test]
fn a_resize_in_a_full_screen_program_keeps_the_main_screen_too() {
    let mut screen = screen(3, 10, "one\r\ntwo\r\nthree\x1b[?1049hvi");
    screen.resize(size(2, 4));
    screen.check();
    screen.feed(b"\x1b[?1049l");
    screen.check();
    assert_eq!(screen.entire(100).text, "one\ntwo\nthre");
}

#[test]
fn a_title_is_kept_as_far_as_it_is_reasonable() {
    assert_eq!(screen(2, 10, "\x1b]0;a;b\x07").title(), "a;b");
    assert_eq!(screen(2, 10, "\x1b]2;é\x1b\\").title(), "é");
    let long = format!("\x1b]2;{}\x07", "x".repeat(1 << 20));
    assert_eq!(screen(2, 10, &long).title().len(), 200);
}

#[test]
fn the_parser_keeps_no_more_of_a_sequence_than_it_may() {
    // With its feature `std` it would keep all of it: 64 MiB here.
    let before = resident_bytes();
    let mut screen = screen(2, 10, "\x1b]2;");
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        screen.feed(&piece);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more than before");
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

/// Bytes that mean something to a terminal come more often than they would by chance.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let sequence = ("[?>!]{0,1}", "[0-9;:]{0,8}", "[@-~]")
        .prop_map(|(private, params, end)| format!("\x1b[{private}{params}{end}").into_bytes());
    let huge = (prop_oneof![Just(0_u32), Just(1), Just(65_535), 2..2_000_u32], "[A-Za-z@`]")
        .prop_map(|(count, end)| format!("\x1b[{count}{end}").into_bytes());
    let modes = prop_oneof![
        Just(1_u16),
        Just(6),
        Just(7),
        Just(25),
        Just(47),
        Just(1047),
        Just(1048),
        Just(1049)
    ];
    let mode = (modes, "[hl]").prop_map(|(mode, on)| format!("\x1b[?{mode}{on}").into_bytes());
    let piece = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..20),
        4 => "[a-z你\u{301}🎉é]{1,30}".prop_map(String::into_bytes),
        4 => sequence,
        4 => huge,
        2 => mode,
        2 => "[\r\n\t\x08\x0b\x0c\x0e\x0f]{1,8}".prop_map(String::into_bytes),
        1 => "\x1b[\\]P^_X][0-9;a-z]{0,40}".prop_map(String::into_bytes),
        1 => "\x1b[78DEHMZc()=>0B]{1,2}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|it| it.concat())
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_leave_a_sound_screen(
        rows in 1..8_u16,
        cols in 1..12_u16,
        bytes in hostile(),
        cut in 1..50_usize,
        sizes in proptest::collection::vec((1..10_u16, 1..14_u16), 1..4),
    ) {
        let mut whole = Screen::new(size(rows, cols));
        whole.feed(&bytes);
        whole.check();
        let mut cut_up = Screen::new(size(rows, cols));
        for piece in bytes.chunks(cut) {
            cut_up.feed(piece);
        }
        prop_assert_eq!(cut_up.entire(usize::MAX), whole.entire(usize::MAX));
        prop_assert_eq!(cut_up.cursor(), whole.cursor());
        for (rows, cols) in sizes {
            whole.resize(size(rows, cols));
            whole.check();
            whole.feed(&bytes);
            whole.check();
        }
        prop_assert!(whole.entire(100).text.len() <= 100);
        prop_assert!(whole.take_answers().len() <= 4_096);
    }
}

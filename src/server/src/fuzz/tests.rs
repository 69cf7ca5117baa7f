//! That it gets somewhere, that a seed repeats it, and that it finds what is planted.

use super::{Dice, Element, Node, Run, SEED, Target, Until, change_der, finding};

/// Begins with nothing, and says how much of a text has been found.
struct Maze {
    /// How many steps break a property, if any do.
    pit: usize,
}

impl Target for Maze {
    const NAME: &'static str = "maze";
    const ROUNDS: u64 = 40_000;

    fn corpus(&self) -> Vec<Vec<u8>> {
        vec![Vec::new()]
    }

    fn reshaped(&self, input: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        Node::changed(input, dice)
    }

    fn attempt(&self, input: &[u8]) -> String {
        let way = input.iter().zip(b"{\":").take_while(|(one, other)| one == other);
        let steps = way.count();
        assert!(steps < self.pit, "fell after {steps} steps");
        format!("{steps} steps")
    }
}

#[test]
fn what_leads_somewhere_new_is_built_upon() {
    let maze = Maze { pit: usize::MAX };
    let mut run = Run::new(&maze, SEED);
    run.until(Until::Executions(Maze::ROUNDS));
    assert!(run.outcomes.contains_key("3 steps"), "{:?}", run.outcomes);
}

#[test]
fn a_property_that_does_not_hold_is_found() {
    assert_eq!(finding(&Maze { pit: 3 }).as_deref(), Some("fell after 3 steps"));
    assert_eq!(finding(&Maze { pit: 4 }), None);
}

#[test]
fn a_seed_tries_the_same_inputs_again() {
    let tried = |seed| {
        let maze = Maze { pit: usize::MAX };
        let mut run = Run::new(&maze, seed);
        run.corpus = vec![b"{\"a\":[1,\"b\"]}".to_vec(), b"x".to_vec()];
        let mut inputs = Vec::new();
        for _ in 0..500 {
            let input = run.next_input();
            inputs.push(input.clone());
            run.attempt(input);
        }
        inputs
    };
    assert_eq!(tried(1), tried(1));
    assert_ne!(tried(1), tried(2));
}

#[test]
fn elements_are_read_in_every_spelling_of_tag_and_length() {
    let read = |bytes: &[u8]| {
        let all = Element::all(bytes)?;
        Some(all.iter().map(|one| (one.number(), one.content.to_vec())).collect::<Vec<_>>())
    };
    assert_eq!(read(b"\x86\x01a\x05\x00"), Some(vec![(6, b"a".to_vec()), (5, Vec::new())]));
    assert_eq!(read(b"\x86\x82\x00\x01a"), Some(vec![(6, b"a".to_vec())]));
    assert_eq!(read(b"\x9f\x06\x01a"), Some(vec![(6, b"a".to_vec())]));
    for cut in [&b"\x86"[..], b"\x86\x02a", b"\x9f\x86", b"\x86\x82\x01", b"\x86\x89\x01\x02"] {
        assert_eq!(read(cut), None, "{cut:?}");
    }
}

/// However deep it was changed, the lengths above are right.
#[test]
fn what_is_changed_in_der_is_one_element() {
    let bytes = b"\x30\x0a\x02\x01\x05\x04\x05\x30\x03\x86\x01a";
    let mut dice = Dice::new(SEED);
    let mut others = 0;
    for _ in 0..1_000 {
        let changed = change_der(bytes, &mut dice).unwrap();
        let (first, rest) = Element::first(&changed).unwrap();
        assert!(rest.is_empty() && first.whole == changed, "{changed:?}");
        others += usize::from(changed != bytes);
    }
    assert!(others > 600, "{others} differ");
}

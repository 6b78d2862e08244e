//! What came of a story, and whether everybody heard what they should.
//!
//! It looks at what was heard and acknowledged alone, whatever happened in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use domain::id::Epoch;

use crate::story::ROOMS;

/// What one client heard in its room, in the order in which it heard it.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Message {
        epoch: Epoch,
        offset: u64,
        data: String,
    },
    Gap {
        epoch: Epoch,
        from: u64,
        to: u64,
        reason: String,
    },
    /// A newer value of the room's one key.
    Value(u64),
    /// A place whose message was never stored.
    Nothing {
        epoch: Epoch,
        offset: u64,
    },
}

/// An acknowledged publish.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) room: usize,
    /// Who said it.
    pub(crate) number: usize,
    /// Whether it did not want it back (`echo:false`).
    pub(crate) is_silent: bool,
    pub(crate) msg_id: String,
    pub(crate) data: String,
    /// What it was acknowledged as.
    pub(crate) level: String,
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
    pub(crate) at: Instant,
}

/// What came of a story.
pub(crate) struct Told {
    pub(crate) heard: Vec<Vec<Heard>>,
    pub(crate) acked: Vec<Acked>,
    /// How many publishes a second were acknowledged before anything happened.
    pub(crate) per_second: f64,
    pub(crate) losses: usize,
    pub(crate) refused: u64,
    /// How connections ended, with how many.
    pub(crate) codes: BTreeMap<u16, usize>,
    /// When connections ended.
    pub(crate) gone: Vec<SystemTime>,
    /// When nodes greeted those who had been here before, in ISO 8601.
    pub(crate) back: Vec<String>,
    /// Who was told to have left, and when.
    pub(crate) leaves: Vec<(Instant, String)>,
    /// Who was back in its room, when, and for how long it had been out of it.
    pub(crate) away: Vec<(Instant, String, Duration)>,
    pub(crate) took: Duration,
    /// From the end of what happened until every node listed just those who are there.
    pub(crate) presence_true_after: Duration,
    /// How often somebody came to a room or left it meanwhile.
    pub(crate) visits: u64,
    /// The most memory of a node, in MiB, before what happened and after it.
    pub(crate) rss_mib: (u64, u64),
}

impl Told {
    /// Nobody heard anything twice or out of order, and everything that was acknowledged was heard by everybody in
    /// its room, at its place, or may be lost by a gap that was told. Answers how many gaps were.
    pub(crate) fn check(&self) -> usize {
        let (gaps, twice) = self.check_each(false, |told, acked| {
            told.has(acked) || told.gaps.iter().any(|gap| gap.excuses(acked))
        });
        assert!(twice.is_empty(), "{twice:?}");
        gaps
    }

    /// The same of what was acknowledged as this, `durable` or `replicated`, and no less: no gap excuses it. Everybody
    /// heard it, and each publisher's in the order in which it was said. Also answers what was heard twice, which only
    /// what was never kept may be.
    pub(crate) fn check_kept(&self, level: &str) -> (usize, Vec<Twice>) {
        let less = self.acked.iter().find(|acked| acked.level != level);
        assert!(less.is_none(), "an acknowledgement is less: {less:?}");
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for acked in &self.acked {
            let before = last.insert(acked.number, acked.offset);
            assert!(before < Some(acked.offset), "{acked:?} behind {before:?}");
        }
        self.check_each(true, |told, acked| told.has(acked))
    }

    fn check_each(
        &self,
        may_be_unkept: bool,
        is_told: impl Fn(&Ordered<'_>, &Acked) -> bool,
    ) -> (usize, Vec<Twice>) {
        let (mut gaps, mut twice) = (0, Vec::new());
        let mut by_room: BTreeMap<usize, Vec<&Acked>> = BTreeMap::new();
        for one in &self.acked {
            by_room.entry(one.room).or_default().push(one);
        }
        for (number, heard) in self.heard.iter().enumerate() {
            let said = by_room.get(&(number % ROOMS)).map_or(&[][..], Vec::as_slice);
            let is_own = |acked: &&Acked| acked.is_silent && acked.number == number;
            let (own, others): (Vec<_>, Vec<_>) = said.iter().copied().partition(is_own);
            let mut told = Ordered::of(number, heard, (&own, may_be_unkept));
            gaps += told.gaps.len();
            twice.append(&mut told.twice);
            for acked in others {
                assert!(
                    is_told(&told, acked),
                    "client {number} never heard of {acked:?}, nor of a gap there: {:?}",
                    told.gaps
                );
            }
        }
        (gaps, twice)
    }

    /// Those who were told to have left although they came back: how long ago each had been lost, and after how long
    /// it was back.
    pub(crate) fn seen_to_leave(&self) -> Vec<String> {
        let of_one = |(at, user): &(Instant, String)| {
            let back = self.away.iter().filter(|(back, who, _)| {
                who == user && back.saturating_duration_since(*at) < Duration::from_secs(10)
            });
            let back = back.map(|(back, _, away)| match back.checked_duration_since(*at) {
                Some(behind) => format!("away for {away:?}, back {behind:?} after that"),
                None => format!("away for {away:?}, back {:?} before that", *at - *back),
            });
            format!("{user}: {:?}", back.collect::<Vec<_>>())
        };
        self.leaves.iter().map(of_one).collect()
    }
}

/// Whether a client does not want its own messages back: every third.
pub(crate) const fn is_silent(number: usize) -> bool {
    number % 3 == 2
}

/// A gap, and what its client had heard by then.
#[derive(Debug)]
struct TheGap<'h> {
    epoch: Epoch,
    from: u64,
    to: u64,
    reason: &'h str,
    /// The last place that it had heard of.
    stood: Option<(Epoch, u64)>,
    /// Of which lives of the log it had heard anything.
    lived: BTreeSet<Epoch>,
}

impl TheGap<'_> {
    /// Whether what was acknowledged there may be missing. A gap names the places of its own epoch. Where the epoch
    /// has changed, the log goes on behind `from - 1`, and what lay further in an earlier life is lost, too; what lay
    /// before is not. Of the life in which its client stood it had heard everything up to there, and of those that it
    /// had crossed before all that counts of them: only of lives that came and went unseen it may know nothing.
    fn excuses(&self, acked: &Acked) -> bool {
        if acked.epoch == self.epoch {
            return (self.from..=self.to).contains(&acked.offset);
        }
        let may_be_lost = self.reason == "epoch_changed" && acked.offset >= self.from;
        may_be_lost
            && match self.stood {
                Some((epoch, offset)) if acked.epoch == epoch => acked.offset > offset,
                _ => !self.lived.contains(&acked.epoch),
            }
    }
}

/// What one client heard twice: in a life of the room's log that is over, and in the next.
#[derive(Debug)]
pub(crate) struct Twice {
    pub(crate) room: usize,
    /// Where it lay, and where it lies.
    pub(crate) offsets: (u64, u64),
    pub(crate) data: String,
}

/// What one client heard, gone through in its order.
struct Ordered<'h> {
    number: usize,
    /// Whether one of its own may be handed out and never kept, where it does not want them back.
    may_be_unkept: bool,
    /// The places of what it said itself and did not want back.
    own: BTreeMap<u64, Vec<Epoch>>,
    /// All that it heard, with each place where it did.
    places: BTreeMap<&'h str, Vec<u64>>,
    /// The same as far as no gap has said that it is lost, with its last place.
    kept: BTreeMap<&'h str, (Epoch, u64)>,
    last: Option<(Epoch, u64)>,
    lived: BTreeSet<Epoch>,
    /// From where on a life that is over was lost.
    lost: BTreeMap<Epoch, u64>,
    value: Option<u64>,
    gaps: Vec<TheGap<'h>>,
    twice: Vec<Twice>,
}

impl<'h> Ordered<'h> {
    fn of(number: usize, heard: &'h [Heard], (said, may_be_unkept): (&[&Acked], bool)) -> Self {
        let mut own: BTreeMap<u64, Vec<Epoch>> = BTreeMap::new();
        for acked in said {
            own.entry(acked.offset).or_default().push(acked.epoch);
        }
        let mut told = Self {
            number,
            may_be_unkept,
            own,
            places: BTreeMap::new(),
            kept: BTreeMap::new(),
            last: None,
            lived: BTreeSet::new(),
            lost: BTreeMap::new(),
            value: None,
            gaps: Vec::new(),
            twice: Vec::new(),
        };
        heard.iter().for_each(|one| told.hear(one));
        told
    }

    /// Whether it heard this, where it was acknowledged.
    fn has(&self, acked: &Acked) -> bool {
        self.places.get(acked.data.as_str()).is_some_and(|places| places.contains(&acked.offset))
    }

    fn hear(&mut self, one: &'h Heard) {
        let number = self.number;
        match one {
            Heard::Message { epoch, offset, data } => {
                self.pass(*epoch, *offset, one);
                self.places.entry(data).or_default().push(*offset);
                let Some((life, at)) = self.kept.insert(data, (*epoch, *offset)) else { return };
                assert!(life != *epoch, "client {number} heard twice: {one:?}, and at {at}");
                let (room, offsets) = (number % ROOMS, (at, *offset));
                self.twice.push(Twice { room, offsets, data: data.clone() });
            }
            Heard::Nothing { epoch, offset } => self.pass(*epoch, *offset, one),
            Heard::Gap { epoch, from, to, reason } => self.miss(*epoch, (*from, *to), reason),
            Heard::Value(newer) => {
                // Who comes back is given it again.
                let is_newer = self.value.is_none_or(|value| value <= *newer);
                assert!(is_newer, "client {number}: {newer} behind {:?}", self.value);
                self.value = Some(*newer);
            }
        }
    }

    /// Goes on to a place: it is the next one, but for what the client said itself.
    fn pass(&mut self, epoch: Epoch, offset: u64, one: &Heard) {
        if let Some((_, last)) = self.last {
            // One of its own may have been handed out and never kept: it was said again, and has its place elsewhere. Had
            // somebody else's lain there, it would be missed.
            let unknown = (last + 1..offset).filter(|between| !self.is_own(*between)).count();
            let is_next = last < offset
                && unknown <= usize::from(self.may_be_unkept && is_silent(self.number));
            assert!(is_next, "client {}: {one:?} behind {last}", self.number);
        }
        self.last = Some((epoch, offset));
        self.lived.insert(epoch);
    }

    fn is_own(&self, offset: u64) -> bool {
        let stays = |epoch: &Epoch| self.lost.get(epoch).is_none_or(|from| offset < *from);
        self.own.get(&offset).is_some_and(|epochs| epochs.iter().any(stays))
    }

    fn miss(&mut self, epoch: Epoch, (from, to): (u64, u64), reason: &'h str) {
        let (stood, lived) = (self.last, self.lived.clone());
        self.gaps.push(TheGap { epoch, from, to, reason, stood, lived });
        if matches!(reason, "epoch_changed" | "unknown_position") {
            // What lay there was lost with its life, and may be said again in the next.
            self.kept.retain(|_, (_, at)| *at < from);
            for over in self.lived.iter().filter(|over| **over != epoch) {
                self.lost.entry(*over).and_modify(|lost| *lost = from.min(*lost)).or_insert(from);
            }
        }
        // Whoever stood ahead of a log goes back to its end.
        let at = if reason == "unknown_position" { from - 1 } else { to };
        self.last = Some((epoch, at));
    }
}

/// What must be found, and what must not.
mod breaches {
    use super::*;

    const OLD: Epoch = Epoch::from_bits(1);
    const NEW: Epoch = Epoch::from_bits(2);
    const UNSEEN: Epoch = Epoch::from_bits(3);
    /// One that wants its own messages back, and one that does not.
    const LOUD: usize = 0;
    const SILENT: usize = 2;

    fn acked(number: usize, epoch: Epoch, offset: u64) -> Acked {
        let data = format!("{offset} of {number} in {epoch:?}");
        let (msg_id, level, at) = (data.clone(), "accepted".to_owned(), Instant::now());
        let is_silent = number == SILENT;
        Acked { room: 0, number, is_silent, msg_id, data, level, epoch, offset, at }
    }

    fn heard(said: &Acked) -> Heard {
        Heard::Message { epoch: said.epoch, offset: said.offset, data: said.data.clone() }
    }

    fn gap(from: u64, to: u64, reason: &str) -> Heard {
        Heard::Gap { epoch: NEW, from, to, reason: reason.to_owned() }
    }

    /// Whether a client that heard this may not have heard of what was said.
    fn is_excused(heard: &[Heard], said: &Acked) -> bool {
        let told = Ordered::of(LOUD, heard, (&[], false));
        told.has(said) || told.gaps.iter().any(|gap| gap.excuses(said))
    }

    #[test]
    fn behind_a_change_of_epoch_is_excused_what_lay_behind_its_beginning_and_nothing_before() {
        let said: Vec<_> = (1..=9).map(|offset| acked(LOUD, OLD, offset)).collect();
        // It had come to 7, and of that the next life has what lay up to 4.
        let mut all: Vec<_> = said[..7].iter().map(heard).collect();
        all.push(gap(5, 4, "epoch_changed"));
        assert!(said.iter().all(|said| is_excused(&all, said)), "8 and 9 are lost");
        let other = |offset| acked(SILENT, OLD, offset);
        assert!(!is_excused(&all, &other(4)) && !is_excused(&all, &other(7)), "it was there then");
        // Of a life that nobody showed it, it may lack what the gap does not give back.
        assert!(!is_excused(&all, &acked(LOUD, UNSEEN, 4)));
        assert!(is_excused(&all, &acked(LOUD, UNSEEN, 6)));
        assert!(!is_excused(&all, &acked(SILENT, NEW, 6)), "and nothing of the one that goes on");
        // Nothing is left, and it had heard nothing.
        assert!(is_excused(&[gap(1, 0, "epoch_changed")], &other(1)));
    }

    #[test]
    fn another_gap_excuses_the_places_that_it_names_alone() {
        let all = [gap(5, 6, "retention")];
        assert!(is_excused(&all, &acked(LOUD, NEW, 5)) && is_excused(&all, &acked(LOUD, NEW, 6)));
        assert!(!is_excused(&all, &acked(LOUD, NEW, 7)) && !is_excused(&all, &acked(LOUD, OLD, 5)));
    }

    #[test]
    fn who_does_not_want_its_own_messages_lacks_nothing_at_their_places_alone() {
        let (first, own, last) = (acked(LOUD, OLD, 1), acked(SILENT, OLD, 2), acked(LOUD, OLD, 3));
        let all = [heard(&first), heard(&last)];
        assert!(Ordered::of(SILENT, &all, (&[&own], false)).has(&last));
        let is_found = |said: &[&Acked]| {
            std::panic::catch_unwind(|| drop(Ordered::of(SILENT, &all, (said, false)))).is_err()
        };
        assert!(is_found(&[]) && is_found(&[&first]), "2 is missing");
    }

    #[test]
    fn a_place_of_ones_own_that_was_lost_with_its_life_is_somebody_elses_in_the_next() {
        let own = acked(SILENT, OLD, 2);
        let ahead = [heard(&acked(LOUD, OLD, 1)), heard(&acked(LOUD, OLD, 3))];
        let behind = [gap(2, 1, "epoch_changed"), heard(&acked(LOUD, NEW, 3))];
        let all: Vec<_> = ahead.into_iter().chain(behind).collect();
        let told = std::panic::catch_unwind(|| drop(Ordered::of(SILENT, &all, (&[&own], false))));
        assert!(told.is_err(), "2 of the next life is missing");
    }

    #[test]
    fn what_was_heard_at_another_place_than_it_was_acknowledged_at_is_not_what_was_acknowledged() {
        let said = acked(LOUD, OLD, 3);
        let elsewhere = Heard::Message { epoch: OLD, offset: 2, data: said.data.clone() };
        assert!(!is_excused(&[elsewhere], &said));
    }
}

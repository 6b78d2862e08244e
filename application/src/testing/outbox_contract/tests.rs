//! The suite against a host that keeps the contract, and against hosts that break one obligation
//! each: a suite that none of them fails would prove nothing.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::outbound_queue::OutboundQueue;
use crate::ports::outbox::Ending;

/// One obligation that a host does not keep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flaw {
    None,
    SwapsMessages,
    SendsTheFirstFrameOnly,
    SendsToEveryone,
    SkipsOneOfMany,
    NamesNobody,
    NamesWhoIsGone,
    TakesForNobody,
    IgnoresGenerations,
    StaysAfterClose,
    ForgetsTheLastFrame,
    SendsAnEmptyLastFrame,
    ClosesWithAnotherCode,
    LosesWhatWaits,
    SaysThatNothingWaits,
    HasNoCap,
    LetsOthersOvertake,
    RefusesWhatMayBeDropped,
    CutsWhatDoesNotFit,
    KeepsOldValues,
    MixesKeysOfRooms,
    ReadsAlways,
    StopsReadingAll,
    NeverReadsAgain,
}

#[derive(Default)]
struct End {
    queue: OutboundQueue,
    refused: bool,
    stalled: bool,
    paused: bool,
    closing: Option<u16>,
    heard: VecDeque<Heard>,
    unread: usize,
}

/// A host without a network: the other end hears what is delivered, or what waited.
struct Model {
    flaw: Flaw,
    ends: BTreeMap<Slot, End>,
    /// Closed ones: still heard.
    closed: BTreeMap<Slot, End>,
}

const CAP: usize = 16_384;

impl Model {
    fn with(flaw: Flaw) -> Self {
        Self { flaw, ends: BTreeMap::new(), closed: BTreeMap::new() }
    }

    fn at(&self, of: Slot) -> Slot {
        let same = |slot: &&Slot| slot.index == of.index && self.flaw == Flaw::IgnoresGenerations;
        self.ends.keys().find(same).copied().unwrap_or(of)
    }

    fn end(&mut self, of: Slot) -> &mut End {
        if self.ends.contains_key(&of) {
            return self.ends.get_mut(&of).unwrap();
        }
        self.closed.get_mut(&of).unwrap()
    }
}

impl End {
    fn hear(&mut self, bytes: &[u8]) {
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.heard.push_back(Heard::Message(String::from_utf8_lossy(line).into_owned()));
        }
    }

    fn flush(&mut self) {
        if self.stalled {
            return;
        }
        while let Some(front) = self.queue.front().cloned() {
            self.queue.advance(front.len());
            self.hear(&front);
        }
        self.heard.extend(self.closing.take().map(Heard::Closed));
    }

    fn push(&mut self, flaw: Flaw, frame: &Frame) -> Delivered {
        let mut frame = frame.clone();
        match (flaw, frame.class, &frame.key) {
            (Flaw::LosesWhatWaits, ..) => return Delivered::Taken,
            (Flaw::KeepsOldValues, Class::Latest, _) => frame.key = None,
            (Flaw::MixesKeysOfRooms, _, Some((_, key))) => frame.key = Some((0, key.clone())),
            (Flaw::RefusesWhatMayBeDropped, ..) => frame.class = Class::Reliable,
            (Flaw::CutsWhatDoesNotFit, Class::Droppable, _) if self.queue.bytes() > CAP / 3 => {
                frame =
                    Frame { bytes: Bytes::from_static(b"{\n"), class: Class::Reliable, key: None };
            }
            _ => {}
        }
        let cap = if flaw == Flaw::HasNoCap { usize::MAX } else { CAP };
        match self.queue.push(frame, cap) {
            Ok(_) => Delivered::Taken,
            Err(_) => Delivered::Refused,
        }
    }
}

impl Outbox for Model {
    fn frame(&mut self, message: &[u8]) -> Bytes {
        [message, b"\n"].concat().into()
    }

    fn deliver(&mut self, to: Slot, batch: &Batch<'_>) -> Delivered {
        let (flaw, to) = (self.flaw, self.at(to));
        if flaw == Flaw::SendsToEveryone {
            self.ends.values_mut().for_each(|end| end.hear(batch.joined));
            return Delivered::Taken;
        }
        let Some(end) = self.ends.get_mut(&to) else {
            let taken = flaw == Flaw::TakesForNobody;
            return if taken { Delivered::Taken } else { Delivered::Gone };
        };
        if end.refused {
            return Delivered::Refused;
        }
        if !end.stalled {
            let sent = if flaw == Flaw::SendsTheFirstFrameOnly {
                &batch.frames[0].bytes
            } else {
                batch.joined
            };
            end.hear(sent);
            if flaw == Flaw::SwapsMessages && end.heard.len() > 1 {
                let last = end.heard.len() - 1;
                end.heard.swap(last - 1, last);
            }
            return Delivered::Taken;
        }
        for frame in batch.frames {
            if end.push(flaw, frame) == Delivered::Refused {
                end.refused = flaw != Flaw::LetsOthersOvertake;
                return Delivered::Refused;
            }
        }
        Delivered::Taken
    }

    fn deliver_to_all(&mut self, to: &[Slot], batch: &Batch<'_>, refused: &mut Vec<Slot>) {
        let flaw = self.flaw;
        for slot in to.iter().skip(usize::from(flaw == Flaw::SkipsOneOfMany)) {
            match self.deliver(*slot, batch) {
                Delivered::Refused if flaw != Flaw::NamesNobody => refused.push(*slot),
                Delivered::Gone if flaw == Flaw::NamesWhoIsGone => refused.push(*slot),
                Delivered::Taken | Delivered::Refused | Delivered::Gone => {}
            }
        }
    }

    fn close(&mut self, to: Slot, last: Bytes, Ending { code, .. }: Ending) {
        let (flaw, to) = (self.flaw, self.at(to));
        if flaw == Flaw::StaysAfterClose {
            if let Some(end) = self.ends.get_mut(&to) {
                end.hear(&last);
                end.heard.push_back(Heard::Closed(code.number()));
            }
            return;
        }
        let Some(mut end) = self.ends.remove(&to) else { return };
        end.queue.drop_messages();
        match flaw {
            Flaw::ForgetsTheLastFrame => {}
            Flaw::SendsAnEmptyLastFrame if last.is_empty() => {
                end.queue.push_urgent(Bytes::from_static(b"{}\n"));
            }
            _ => end.queue.push_urgent(last),
        }
        let other = flaw == Flaw::ClosesWithAnotherCode;
        end.closing = Some(if other { 1000 } else { code.number() });
        end.flush();
        self.closed.insert(to, end);
    }

    fn set_reading(&mut self, of: Slot, reading: bool) {
        let (flaw, of) = (self.flaw, self.at(of));
        for (slot, end) in &mut self.ends {
            if *slot == of || (flaw == Flaw::StopsReadingAll && !reading) {
                end.paused = match flaw {
                    Flaw::ReadsAlways => false,
                    Flaw::NeverReadsAgain => true,
                    _ => !reading,
                };
            }
        }
    }

    fn queued_bytes(&self, of: Slot) -> usize {
        if self.flaw == Flaw::SaysThatNothingWaits {
            return 0;
        }
        self.ends.get(&self.at(of)).map_or(0, |end| end.queue.bytes())
    }
}

impl OutboxHost for Model {
    fn queue_bytes_max(&self) -> usize {
        CAP
    }

    fn unread_bytes_max(&self) -> usize {
        0
    }

    fn open(&mut self, at: Slot) {
        assert!(self.ends.insert(at, End::default()).is_none(), "the place is free");
    }

    fn outbox(&mut self, act: &mut dyn FnMut(&mut dyn Outbox)) {
        act(self);
    }

    fn stall(&mut self, at: Slot) {
        self.end(at).stalled = true;
    }

    fn resume(&mut self, at: Slot) {
        let end = self.end(at);
        end.stalled = false;
        end.flush();
    }

    fn hear(&mut self, at: Slot) -> Heard {
        self.end(at).heard.pop_front().unwrap_or(Heard::Silence)
    }

    fn say(&mut self, from: Slot, _text: &str) {
        self.end(from).unread += 1;
        let reads = self.reads_all(from);
        assert!(reads || self.end(from).paused, "read, unless it is not to be");
    }

    fn reads_all(&mut self, of: Slot) -> bool {
        let end = self.end(of);
        if !end.paused {
            end.unread = 0;
        }
        end.unread == 0
    }

    fn has_unread(&mut self, of: Slot) -> bool {
        self.end(of).unread > 0
    }
}

mod a_host_that_keeps_it {
    use super::{Flaw, Model};

    fn model() -> Model {
        Model::with(Flaw::None)
    }

    crate::outbox_contract_tests!(model);
}

#[track_caller]
fn breaks(flaw: Flaw, part: fn(&mut Model)) {
    let broken = catch_unwind(AssertUnwindSafe(|| part(&mut Model::with(flaw)))).is_err();
    assert!(broken, "{flaw:?} passes");
}

#[test]
fn each_broken_obligation_fails_its_part_of_the_suite() {
    let order = what_is_delivered_arrives_whole_and_in_the_order_of_the_calls;
    let last = the_last_frame_and_the_code_arrive_and_then_the_connection_is_gone;
    let waits = what_has_to_wait_arrives_later_in_order;
    let bounded = what_waits_is_bounded_and_then_refused_and_nobody_else_suffers;
    let newest = the_newest_of_a_key_takes_the_place_of_one_that_waits;
    let reading = reading_stops_and_goes_on_for_one_connection_only;
    breaks(Flaw::SwapsMessages, order);
    breaks(Flaw::SendsTheFirstFrameOnly, a_batch_arrives_as_its_frames);
    breaks(Flaw::SendsToEveryone, nobody_hears_what_is_for_others);
    let many = many_get_a_batch_at_once_and_who_was_refused_is_named;
    breaks(Flaw::SkipsOneOfMany, many);
    breaks(Flaw::NamesNobody, many);
    breaks(Flaw::NamesWhoIsGone, many);
    breaks(Flaw::TakesForNobody, a_place_that_nobody_has_is_gone);
    breaks(Flaw::IgnoresGenerations, an_earlier_life_of_a_place_is_gone);
    breaks(Flaw::StaysAfterClose, last);
    breaks(Flaw::ForgetsTheLastFrame, last);
    breaks(Flaw::SendsAnEmptyLastFrame, a_close_without_a_last_frame_only_closes);
    breaks(Flaw::ClosesWithAnotherCode, last);
    breaks(Flaw::LosesWhatWaits, waits);
    breaks(Flaw::SaysThatNothingWaits, waits);
    breaks(Flaw::HasNoCap, bounded);
    breaks(Flaw::LetsOthersOvertake, bounded);
    breaks(Flaw::RefusesWhatMayBeDropped, what_may_be_dropped_is_never_refused);
    breaks(Flaw::CutsWhatDoesNotFit, what_may_be_dropped_is_never_refused);
    breaks(Flaw::KeepsOldValues, newest);
    breaks(Flaw::MixesKeysOfRooms, newest);
    breaks(Flaw::ReadsAlways, reading);
    breaks(Flaw::StopsReadingAll, reading);
    breaks(Flaw::NeverReadsAgain, reading);
}

//! What a client says, as the line shows it: from this the checker knows what answers may come, and what each room was
//! asked for.
//!
//! It must never believe what the client thinks that it has said.

use domain::position::Position;
use domain::protocol::{ClientFrame, decode};
use domain::room::RoomId;

use crate::checker::{Checked, Stage, Violation};
use crate::client::{Asked, Client, Said, Scene};
use crate::faults::Effect;

impl Client {
    /// The client says something on the line.
    pub(crate) fn on_said(&mut self, text: &str, scene: &mut Scene<'_>) -> Checked {
        for frame in decode(text) {
            let frame = frame.map_err(|rejected| {
                let text = format!("client {} says {text}: {rejected:?}", self.index);
                Violation::new("I23", text)
            })?;
            let Some(asked) = self.on_frame_said(&frame, scene)? else { continue };
            let Some(id) = frame.id() else { continue };
            self.asked.insert(id, asked);
            // What is repeated may be granted for the first time that it was said.
            self.asked_ms.entry(id).or_insert(scene.now_ms);
        }
        Ok(())
    }

    fn on_frame_said(
        &mut self,
        frame: &ClientFrame<'_>,
        scene: &mut Scene<'_>,
    ) -> Result<Option<Asked>, Violation> {
        Ok(Some(match frame {
            ClientFrame::Connect { resume, .. } => {
                for room in resume {
                    self.on_joining(&room.room, Some(room.since), room.presence, scene)?;
                }
                Asked::Connect
            }
            ClientFrame::Subscribe { room, since, presence, .. } => {
                Asked::Subscribe(self.on_joining(room, *since, *presence, scene)?)
            }
            ClientFrame::Unsubscribe { room, .. } => {
                let view = self.view(room)?;
                self.views[view].stage = Stage::Leaving;
                Asked::Unsubscribe(view)
            }
            ClientFrame::Publish { id, data, .. } => {
                let sent = self.sent_as(data).ok_or_else(|| {
                    let text = format!("client {} says what nobody asked: {data}", self.index);
                    Violation::new("I23", text)
                })?;
                self.on_publishing(id.unwrap_or(0), sent, scene);
                Asked::Publish(sent)
            }
            ClientFrame::Presence { room, .. } => Asked::Presence(self.view(room)?),
            ClientFrame::PresenceUpdate { room, .. } => Asked::Update(self.view(room)?),
            ClientFrame::History { room, .. } => Asked::History(self.view(room)?),
            ClientFrame::Refresh { .. } => Asked::Refresh,
            ClientFrame::Ping { .. } => Asked::Ping,
            ClientFrame::Status { .. } => Asked::Status,
            ClientFrame::Pong => return Ok(None),
            ClientFrame::SubscribePattern { .. }
            | ClientFrame::UnsubscribePattern { .. }
            | ClientFrame::Other { .. } => {
                let text = format!("client {} says {frame:?}", self.index);
                return Err(Violation::new("I23", text));
            }
        }))
    }

    /// It wants to be in a room, from where its application stands.
    fn on_joining(
        &mut self,
        room: &RoomId,
        since: Option<Position>,
        presence: bool,
        scene: &Scene<'_>,
    ) -> Result<usize, Violation> {
        let index = self.view(room)?;
        self.check_named(index, since, scene)?;
        let view = &mut self.views[index];
        view.stage = Stage::Joining { named: since.is_some(), gap: false };
        view.at = since.map(|since| (since.epoch, since.offset.get()));
        view.asked_ms = scene.now_ms;
        view.present.followed = presence;
        Ok(index)
    }

    fn on_publishing(&mut self, id: u64, index: usize, scene: &mut Scene<'_>) {
        let fresh = Said { sent: index, tries: 0, acks: 0, errors: 0 };
        self.published.entry(id).or_insert(fresh).tries += 1;
        let sent = &mut self.sent[index];
        sent.tries += 1;
        if sent.tries == 1 {
            self.n_said += 1;
            sent.link = scene.at.map_or(0, |place| place.link);
            sent.place = self.n_said;
        } else {
            scene.core.counts.effect(Effect::SaidAgain);
        }
    }
}

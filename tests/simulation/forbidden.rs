//! What must hold for who is muted, banned or put out (I18): what a sanction forbids is not granted while it lasts, and
//! nothing is refused that no sanction explains.
//!
//! Here it must never be decided what somebody does who is refused something: that is its client's, or its own.

use domain::codes::ErrorCode;
use domain::moderation::Deed;
use domain::protocol::server_event::Unsubscribed;

use crate::checker::{Checked, Stage, Violation};
use crate::client::{Asked, Client, Scene};
use crate::faults::Effect;

fn accuse(text: String) -> Violation {
    Violation::new("I18", text)
}

impl Client {
    /// What a command is in the eyes of moderators, and in which room.
    fn deed_of(&self, asked: Asked) -> Option<(Deed, usize)> {
        match asked {
            Asked::Publish(sent) => Some((Deed::Speak, self.sent[sent].view)),
            Asked::Update(view) => Some((Deed::Speak, view)),
            Asked::Subscribe(view) | Asked::Presence(view) | Asked::History(view) => {
                Some((Deed::Enter, view))
            }
            Asked::Connect
            | Asked::Unsubscribe(_)
            | Asked::Refresh
            | Asked::Ping
            | Asked::Status => None,
        }
    }

    /// Something was granted that was asked at a moment: no sanction stood against it from before that
    /// until now.
    pub(crate) fn check_granted(
        &self,
        asked: Asked,
        since_ms: u64,
        scene: &mut Scene<'_>,
    ) -> Checked {
        let (Some(user), Some((deed, view))) = (self.user.as_deref(), self.deed_of(asked)) else {
            return Ok(());
        };
        let room = &self.views[view].room;
        let docket = &scene.core.docket;
        let span = (since_ms, scene.now_ms);
        if let Some(holds) = docket.in_force(user, room, deed, span) {
            let text =
                format!("{user} asked {asked:?} in {room} at {since_ms}, and may: {holds:?}");
            return Err(accuse(text));
        }
        if docket.is_over(user, room, deed, since_ms) {
            scene.core.counts.effect(Effect::SanctionOver);
        }
        Ok(())
    }

    /// Something is not allowed: there is somebody who forbids it, or did while it was on its way.
    pub(crate) fn on_forbidden(
        &mut self,
        asked: Asked,
        since_ms: u64,
        scene: &mut Scene<'_>,
    ) -> Checked {
        let fail = |text: &str| Err(accuse(format!("{asked:?} at {since_ms}: {text}")));
        let Some((deed, view)) = self.deed_of(asked) else { return fail("needs no right") };
        let Some(user) = self.user.as_deref() else { return fail("nobody moderates nobody") };
        let room = &self.views[view].room;
        let docket = &scene.core.docket;
        let met =
            matches!(asked, Asked::Subscribe(_)) && docket.put_out_since(user, room, since_ms);
        if !met && !docket.may_forbid(user, room, deed, since_ms) {
            return fail(&format!("{user} is neither muted nor banned in {room}"));
        }
        let kept = docket.in_force(user, room, deed, (since_ms, scene.now_ms));
        let node = scene.at.map(|place| place.node);
        if kept.is_some_and(|holds| Some(holds.node) != node) {
            scene.core.counts.effect(Effect::SanctionKept);
        }
        scene.core.counts.effect(match deed {
            Deed::Speak => Effect::SpeechRefused,
            Deed::Enter => Effect::EntryRefused,
        });
        if let Asked::Subscribe(view) = asked {
            self.views[view].stage = Stage::Off;
        }
        Ok(())
    }

    /// Something can't be done where the client is no member: it was put out meanwhile.
    pub(crate) fn on_not_member(&self, asked: Asked, since_ms: u64) -> Checked {
        let (Asked::Unsubscribe(view) | Asked::Update(view)) = asked else {
            return Err(accuse(format!("{asked:?} needs a member")));
        };
        if self.views[view].was_put_out_since(since_ms) {
            return Ok(());
        }
        Err(accuse(format!("{asked:?} at {since_ms}: nobody was put out")))
    }

    /// A moderator has put the client out of a room: on this connection it was, or thought that it was, a
    /// member.
    pub(crate) fn on_put_out(
        &mut self,
        index: usize,
        told: &Unsubscribed<'_>,
        scene: &mut Scene<'_>,
    ) -> Checked {
        let view = &mut self.views[index];
        let by_moderator = self
            .user
            .as_deref()
            .is_some_and(|user| scene.core.docket.put_out_since(user, &view.room, view.asked_ms));
        let is_member = matches!(view.stage, Stage::On | Stage::Leaving);
        let denied = told.code == Some(ErrorCode::PermissionDenied.number());
        if !by_moderator || !is_member || !denied {
            let text = format!("client {} in {:?}: {told:?}", self.index, view.stage);
            return Err(accuse(text));
        }
        scene.core.counts.effect(Effect::UserPutOut);
        view.put_out_ms = Some(scene.now_ms);
        Ok(())
    }
}

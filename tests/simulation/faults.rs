//! What goes wrong, and what must have come of it: two tables that count over all seeds.
//!
//! A row that stays at zero means that the simulation does not test what it claims.

use std::fmt;

/// A story without faults proves little.
pub(crate) const FAULTS_MIN: u64 = 3;

macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $words:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum $name { $($variant),* }

        impl $name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub(crate) const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words),* }
            }
        }
    };
}

table! {
    /// What is done to the nodes, the broker and the network.
    Fault {
        NotificationLost = "a notification is lost",
        NotificationDoubled = "a notification comes twice",
        NotificationLate = "a notification is late",
        PublishRefused = "a publish is refused",
        PublishReplyLost = "the answer to a publish is lost",
        SubscribeRefused = "a subscription is refused",
        ReadSlow = "reading the log is slow",
        ReadRefused = "reading the log fails",
        EpochChanged = "the log is lost",
        PresenceRefused = "entering presence fails",
        PresenceReplyLost = "the answer to entering presence is lost",
        PresenceSlow = "leaving presence is slow",
        NodeKilled = "a node is killed",
        NodeDrained = "a node is drained",
        ShardStalled = "a shard gets no processor",
        ClientClosed = "a client closes",
        LinkCut = "a link is cut",
        LinkSilent = "a link goes silent",
        ReaderSlow = "a client stops reading",
        ConnectionEnded = "a connection is ended by order",
        UserEnded = "a user is ended by order",
        MessageRefused = "a middleware refuses a message",
        AppendSlow = "the archive is slow to append",
        AppendFailed = "an append fails",
        AppendAnswerLost = "an append is stored, and fails",
        AppendKilled = "a kill before an append is stored",
        AppendAnswerKilled = "a kill after an append is stored",
        ArchiveSlow = "the archive is slow to open or read",
        ArchiveFailed = "the archive can't open or read",
        InboxSlow = "the inbox is slow",
        InboxFailed = "the inbox fails",
        InboxAnswerLost = "the inbox does it, and fails",
        ModerationSlow = "recording an act is slow",
        ModerationFailed = "recording an act fails",
        ModerationAnswerLost = "an act is recorded, and fails",
        RecordKilled = "a kill before an act is recorded",
        RecordAnswerKilled = "a kill after an act is recorded",
        RedisCut = "a node is cut off from Redis",
        RedisAway = "Redis is away from all nodes",
        RedisRestarted = "Redis restarts with all it had",
        RedisForgot = "Redis restarts without anything",
        RedisSlow = "Redis is slow to be asked",
        RedisAnswerLost = "an answer of Redis is lost",
    }
}

table! {
    /// What the faults must have led to somewhere.
    Effect {
        Recovered = "recovered without a gap",
        PageRead = "a further page of recovery",
        Resumed = "a room comes back with hello",
        ResumedInPart = "a room comes back with hello and pages",
        TicketOpened = "a ticket is taken for a token",
        TicketRefused = "a ticket does not count, its token does",
        GapRetention = "gap: retention",
        GapEpoch = "gap: epoch_changed",
        GapOverflow = "gap: overflow",
        Tombstone = "a tombstone",
        AckedInPlace = "an ack in its message's place",
        AckedTwice = "an ack of a duplicate",
        Retried = "a publish is sent again",
        MailboxFull = "mail does not fit",
        SlowConsumer = "closed: slow_consumer",
        NoPong = "closed: no_pong",
        InsufficientState = "closed: insufficient_state",
        TokenExpired = "closed: token_expired",
        Restart = "closed: restart",
        Refreshed = "a token is refreshed",
        LeaseEnded = "a lease ran out",
        PresenceListed = "a presence list",
        PresenceChanged = "a presence event",
        PresenceHole = "a hole in presence",
        PresenceCut = "a presence list of some of those who are there",
        PresenceGathered = "presence events that come together",
        PresenceCounted = "a crowd is counted",
        HistoryRead = "a page of history",
        ReadingPaused = "a client is not read",
        FilteredOut = "a filter passes over messages",
        LatestReplaced = "a message of class latest",
        QueueDropped = "a full queue drops by class",
        CallDropped = "a call dies with its node",
        AckedDurable = "an ack of level durable",
        LogKept = "a durable log is opened again",
        FoundStored = "a retry is found in the archive",
        LetterKept = "a letter is kept",
        LetterAcked = "an ack of a letter",
        LetterHeard = "a letter comes",
        LetterAgain = "a letter is given again",
        LetterLost = "a letter is lost in a broken socket",
        InboxFull = "as many letters wait as may",
        ActAcked = "a moderator's act is acknowledged",
        UserPutOut = "a user is put out of a room",
        SpeechRefused = "who is muted or banned is not heard",
        EntryRefused = "who is banned does not come in",
        ReturnRefused = "who is banned does not come back with hello",
        SanctionKept = "a sanction is there after a restart",
        SanctionOver = "a sanction is over, and its user back",
        LeaseClaimed = "the lease of a node is claimed",
        NameChanged = "a node takes another name",
        LateWord = "a word of a node comes behind its end",
        SeatRefused = "a seat is refused for those on all nodes",
        SeatDoubted = "a seat is in doubt, and waited for",
        TryAgainLater = "closed: try_again_later",
        ConnectionLimit = "closed: connection_limit",
        SessionReplaced = "closed: session_replaced",
        PublishFenced = "a publish is refused by its user's fence",
        FenceUnknown = "a publish is refused: Redis lost the fence",
        TokenReplayed = "a token that counts once is shown again",
        DrainedInTurn = "a connection is told its turn in a drain",
        NewcomerSentOn = "one who comes to a drain is sent on",
        ClientRenewed = "an application begins with another client",
        HungUp = "a client gives up a silent connection",
        SaidOffline = "a publish waits for a connection",
        SaidAgain = "a client publishes again by itself",
        PublishedAgain = "a publish is given up, and asked again",
    }
}

/// Counts over one or many seeds.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    faults: Vec<u64>,
    effects: Vec<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { faults: vec![0; Fault::ALL.len()], effects: vec![0; Effect::ALL.len()] }
    }
}

impl Counts {
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects[effect as usize] += 1;
    }

    pub(crate) fn of(&self, effect: Effect) -> u64 {
        self.effects[effect as usize]
    }

    pub(crate) fn faults_fired(&self) -> u64 {
        self.faults.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, more) in self.faults.iter_mut().zip(&other.faults) {
            *sum += more;
        }
        for (sum, more) in self.effects.iter_mut().zip(&other.effects) {
            *sum += more;
        }
    }

    /// The rows that never happened.
    pub(crate) fn zeros(&self) -> Vec<&'static str> {
        let faults = Fault::ALL.iter().filter(|f| self.faults[**f as usize] == 0);
        let effects = Effect::ALL.iter().filter(|e| self.effects[**e as usize] == 0);
        faults.map(|f| f.words()).chain(effects.map(|e| e.words())).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(f, "  {:<42} {:>10}", fault.words(), self.faults[*fault as usize])?;
        }
        writeln!(f)?;
        for effect in Effect::ALL {
            writeln!(f, "  {:<42} {:>10}", effect.words(), self.effects[*effect as usize])?;
        }
        Ok(())
    }
}

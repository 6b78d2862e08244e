// A room of the fake server: its log, its members and who is there.
//
// It must never give two messages of one epoch the same offset.

import type { LogEntry, Position } from '../protocol.js';

/** What is said of a stretch that will not come. */
export interface FakeGap {
  from: number;
  to: number;
  reason: string;
}

/** What whoever comes back has missed. */
export interface Missed {
  messages: LogEntry[];
  gap: FakeGap | null;
  recovered: boolean;
}

/** One room. */
export class FakeRoom {
  epoch: string;
  offset = 0;
  entries: LogEntry[] = [];
  readonly latest = new Map<string, LogEntry>();
  seq = 0;
  readonly members = new Map<string, { user_id: string; data: unknown; connections: number }>();

  constructor(
    readonly name: string,
    epoch: number,
    readonly entriesMax: number,
  ) {
    this.epoch = epoch.toString(16).padStart(16, '0');
  }

  /** A log that was lost begins anew. */
  renew(epoch: number): void {
    this.epoch = epoch.toString(16).padStart(16, '0');
    this.offset = 0;
    this.entries = [];
    this.latest.clear();
  }

  /** Gives the next place of the log to a message. */
  append(message: object): LogEntry {
    this.offset += 1;
    const entry = { type: 'message', room: this.name, epoch: this.epoch, offset: this.offset, ...message } as LogEntry;
    this.entries.push(entry);
    if (this.entries.length > this.entriesMax) this.entries.shift();
    return entry;
  }

  /** Takes what a message said away. */
  delete(offset: number): void {
    this.entries = this.entries.map((entry) => {
      if (entry.offset !== offset) return entry;
      const { room, epoch, timestamp } = entry;
      return { type: 'tombstone', room, epoch, offset, reason: 'deleted', timestamp };
    });
  }

  /** What was missed since a position. */
  since(position: Position | null | undefined): Missed {
    if (!position) return { messages: [], gap: null, recovered: false };
    const first = this.entries[0]?.offset ?? this.offset + 1;
    if (position.epoch !== this.epoch) {
      const gap = { from: 1, to: first - 1, reason: 'epoch_changed' };
      return { messages: this.entries, gap, recovered: false };
    }
    if (position.offset > this.offset) {
      return {
        messages: [],
        gap: { from: this.offset + 1, to: this.offset, reason: 'unknown_position' },
        recovered: false,
      };
    }
    const messages = this.entries.filter(({ offset }) => (offset ?? 0) > position.offset);
    if (position.offset + 1 >= first) return { messages, gap: null, recovered: true };
    return { messages, gap: { from: position.offset + 1, to: first - 1, reason: 'retention' }, recovered: false };
  }
}

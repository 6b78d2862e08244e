// The diagnostics panel: what a manager says of itself, for people.
//
// It must never keep a connection alive or change one but by its buttons, and never show a token.

import { type CSSProperties, type ReactNode, useEffect, useState } from 'react';
import type { WebSocketManager } from '../manager/manager.js';
import type { WSConnectionAttempt, WSState } from '../manager/types.js';
import { useManagerState } from '../react/connection.js';

const COLOURS: { readonly [P in WSState['phase']]: string } = {
  idle: '#8b949e',
  connecting: '#d29922',
  open: '#3fb950',
  degraded: '#d29922',
  reconnecting: '#d29922',
  failed: '#f85149',
  fallback: '#f85149',
};

const STYLES = {
  panel: {
    position: 'fixed',
    right: 16,
    bottom: 16,
    width: 420,
    maxWidth: 'calc(100vw - 32px)',
    maxHeight: '80vh',
    overflow: 'auto',
    zIndex: 2147483000,
    padding: 16,
    borderRadius: 8,
    border: '1px solid #30363d',
    background: '#0d1117',
    color: '#e6edf3',
    colorScheme: 'dark',
    textAlign: 'left',
    font: '13px/1.5 system-ui, sans-serif',
    boxShadow: '0 8px 24px rgba(0,0,0,.4)',
    boxSizing: 'border-box',
  },
  heading: {
    margin: '14px 0 4px',
    fontSize: 11,
    letterSpacing: '.06em',
    textTransform: 'uppercase',
    color: '#8b949e',
    fontWeight: 600,
  },
  button: {
    padding: '3px 10px',
    borderRadius: 6,
    border: '1px solid #30363d',
    background: '#21262d',
    color: 'inherit',
    font: 'inherit',
  },
  table: { width: '100%', borderCollapse: 'collapse', fontVariantNumeric: 'tabular-nums' },
  cell: {
    padding: '2px 8px 2px 0',
    textAlign: 'left',
    verticalAlign: 'top',
    overflowWrap: 'anywhere',
    fontWeight: 400,
  },
  number: { padding: '2px 0', textAlign: 'right', verticalAlign: 'top', whiteSpace: 'nowrap' },
  dim: { color: '#8b949e', overflowWrap: 'anywhere' },
  row: { display: 'flex', gap: 8, flexWrap: 'wrap', alignItems: 'center' },
} satisfies Record<string, CSSProperties>;

/** `1 h 02 min 03 s`. */
export function span(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const two = (n: number) => String(n).padStart(2, '0');
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two(Math.floor(seconds / 60) % 60)} min ${two(seconds % 60)} s`;
}

const time = (date: Date | null): string => date?.toLocaleTimeString() ?? 'never';

function Section({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section aria-label={title}>
      <h3 style={STYLES.heading}>{title}</h3>
      {children}
    </section>
  );
}

function Numbers({ rows }: { rows: readonly (readonly [string, string | number])[] }) {
  return (
    <table style={STYLES.table}>
      <tbody>
        {rows.map(([name, value]) => (
          <tr key={name}>
            <th scope="row" style={STYLES.cell}>
              {name}
            </th>
            <td style={STYLES.number}>{value}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function outcome(attempt: WSConnectionAttempt): string {
  if (attempt.success === null) return 'under way';
  const end = attempt.error_message && ` ${attempt.error_class}: ${attempt.error_message}`;
  const next = attempt.next_delay_ms === null ? '' : `, next in ${attempt.next_delay_ms} ms`;
  return `${attempt.success ? 'connected' : 'failed'}${end ? `,${end}${next}` : ''}`;
}

function Attempts({ attempts }: { attempts: readonly WSConnectionAttempt[] }) {
  if (attempts.length === 0) return <div style={STYLES.dim}>none yet</div>;
  return (
    <table style={STYLES.table}>
      <tbody>
        {[...attempts].reverse().map((attempt) => (
          <tr key={attempt.attempt_number}>
            <td style={{ ...STYLES.cell, color: '#8b949e', whiteSpace: 'nowrap' }}>#{attempt.attempt_number}</td>
            <td style={{ ...STYLES.cell, whiteSpace: 'nowrap' }}>{time(attempt.started_at)}</td>
            <td style={STYLES.cell}>{outcome(attempt)}</td>
            <td style={STYLES.number}>{attempt.duration_ms === null ? '' : `${Math.round(attempt.duration_ms)} ms`}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Controls({ manager, phase }: { manager: WebSocketManager; phase: WSState['phase'] }) {
  const isUp = phase === 'open' || phase === 'degraded';
  const button = (name: string, action: () => void, isOff: boolean) => (
    <button
      key={name}
      type="button"
      style={{ ...STYLES.button, opacity: isOff ? 0.5 : 1 }}
      disabled={isOff}
      onClick={action}
    >
      {name}
    </button>
  );
  return (
    <div style={{ ...STYLES.row, marginTop: 10 }}>
      {button('Connect', () => manager.connect(), isUp)}
      {button('Disconnect', () => manager.disconnect(), phase === 'idle')}
      {button('Reconnect', () => manager.reconnect(), false)}
      {button('Ping', () => manager.ping(), !isUp)}
    </div>
  );
}

/** The numbers of {@link WSState}, as rows. */
function numbers({ stats }: WSState): [string, string | number][] {
  return [
    ['Uptime', stats.connection_start ? span(stats.current_uptime_ms) : 'not connected'],
    ['Attempts', stats.total_attempts],
    ['Successful connections', stats.successful_connections],
    ['Messages received / sent', `${stats.messages_received} / ${stats.messages_sent}`],
    ['Heartbeats received / sent', `${stats.heartbeats_received} / ${stats.heartbeats_sent}`],
    ['Last activity', time(stats.last_activity)],
    ['Connected since', time(stats.connection_start)],
  ];
}

/** The panel of a manager. */
export function WebSocketDiagnosticsPanel({ manager, onClose }: { manager: WebSocketManager; onClose?: () => void }) {
  useManagerState(manager);
  // What is only counted changes without a word: it is read each second.
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  const state = manager.getState();
  const counts = Object.entries(state.stats.message_counts_by_type).sort((a, b) => b[1] - a[1]);
  return (
    <aside style={STYLES.panel} aria-label="WebSocket diagnostics" data-phase={state.phase}>
      <div style={{ ...STYLES.row, justifyContent: 'space-between' }}>
        <strong style={STYLES.row}>
          <span aria-hidden style={{ width: 10, height: 10, borderRadius: 5, background: COLOURS[state.phase] }} />
          WebSocket: {state.phase}
        </strong>
        {onClose && (
          <button type="button" style={STYLES.button} onClick={onClose} aria-label="Close">
            ✕
          </button>
        )}
      </div>
      <div style={STYLES.dim}>{state.url.replace(/([?&]token=)[^&]*/g, '$1…')}</div>
      <div style={STYLES.dim}>client {state.client_id}</div>
      {state.fallback_reason && (
        <div role="alert" style={{ color: '#f85149', marginTop: 8 }}>
          Fallback: {state.fallback_reason}
        </div>
      )}
      <Controls manager={manager} phase={state.phase} />
      <Section title="Statistics">
        <Numbers rows={numbers(state)} />
      </Section>
      <Section title="Recent attempts">
        <Attempts attempts={state.recent_attempts} />
      </Section>
      <Section title="Messages by type">
        {counts.length > 0 ? <Numbers rows={counts} /> : <div style={STYLES.dim}>none yet</div>}
      </Section>
      <Section title="Server features">
        <div>{state.connection_features.join(', ') || <span style={STYLES.dim}>not known yet</span>}</div>
        {state.last_hello_message && <div style={STYLES.dim}>request {state.last_hello_message.request_id}</div>}
      </Section>
    </aside>
  );
}

// `useRoom` and `usePresence`: rooms of protocol v2 for components.
//
// It must never leave a room that another component is still in, nor keep more messages than asked for.

import {
  createContext,
  createElement,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from 'react';
import type { ErrorFrame } from '../protocol.js';
import type { RoomkeeperClient } from '../v2/client.js';
import type { Room } from '../v2/room.js';
import {
  type ClientState,
  type Gap,
  type JoinOptions,
  type Message,
  type Presence,
  type Published,
  type PublishOptions,
  RequestError,
  type RoomState,
} from '../v2/types.js';
import { retain } from './shared.js';

const Context = createContext<RoomkeeperClient | null>(null);

/** Gives a client to the components below. It connects with the first provider and disconnects with the last. */
export function RoomkeeperProvider({ client, children }: { client: RoomkeeperClient; children?: ReactNode }) {
  useEffect(
    () =>
      retain(
        client,
        () => client.connect(),
        () => client.disconnect(),
      ),
    [client],
  );
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the provider above. */
export function useRoomkeeper(): RoomkeeperClient {
  const client = useContext(Context);
  if (!client) throw new Error('there is no RoomkeeperProvider above');
  return client;
}

/** How the connection stands. */
export function useClientState(): ClientState {
  const client = useRoomkeeper();
  const subscribe = useCallback((changed: () => void) => client.on('state', changed), [client]);
  const read = () => client.state;
  return useSyncExternalStore(subscribe, read, read);
}

/** How a component is in a room. The options of the first component that is there count. */
export interface UseRoomOptions<T> extends JoinOptions {
  /** How many of the last messages are kept for rendering; 100. */
  keep?: number;
  onMessage?: (message: Message<T>) => void;
  onGap?: (gap: Gap) => void;
}

/** A room as a component sees it. */
export interface UsedRoom<T> {
  room: Room<T>;
  state: RoomState;
  isJoined: boolean;
  /** The last messages that came while the component was there, oldest first. */
  messages: readonly Message<T>[];
  /** Why the client is not in, when the server has refused. */
  error: RequestError | null;
  publish(data: T, options?: PublishOptions): Promise<Published>;
}

/** The room of a name, with its state. */
function useRoomState<T>(name: string): [Room<T>, RoomState] {
  const client = useRoomkeeper();
  const room = useMemo(() => client.room<T>(name), [client, name]);
  const subscribe = useCallback((changed: () => void) => room.on('state', changed), [room]);
  const read = () => room.state;
  return [room, useSyncExternalStore(subscribe, read, read)];
}

/** Is in a room as long as the component is mounted. */
export function useRoom<T = unknown>(name: string, options: UseRoomOptions<T> = {}): UsedRoom<T> {
  const [room, state] = useRoomState<T>(name);
  const [messages, setMessages] = useState<{ room: Room<T>; list: readonly Message<T>[] }>({ room, list: [] });
  const [failure, setFailure] = useState<{ room: Room<T>; error: RequestError } | null>(null);
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  useEffect(() => {
    let isHere = true;
    const failed = (error: RequestError) => {
      if (isHere && error.code === 'refused') setFailure({ room, error });
    };
    const { keep: _, onMessage: __, onGap: ___, ...join } = latest.current;
    const offs = [
      room.on('message', (message) => {
        const { keep = 100, onMessage } = latest.current;
        setMessages(({ room: of, list }) => ({ room, list: [...(of === room ? list : []), message].slice(-keep) }));
        onMessage?.(message);
      }),
      room.on('gap', (gap) => latest.current.onGap?.(gap)),
      room.on('joined', () => setFailure(null)),
      // Also of whoever was in, for whom no promise is left to be rejected.
      room.on('left', ({ code, reason }) => {
        const refusal = { code, error: reason, message: '' } as ErrorFrame;
        setFailure({ room, error: new RequestError('refused', refusal) });
      }),
      retain(
        room,
        () => void room.join(join),
        () => void room.leave(),
      ),
    ];
    // Whoever is in already hears the same.
    room.join(join).catch(failed);
    return () => {
      isHere = false;
      for (const off of offs) off();
    };
  }, [room]);
  const publish = useCallback((data: T, more?: PublishOptions) => room.publish(data, more), [room]);
  const list = messages.room === room ? messages.list : [];
  const error = failure?.room === room ? failure.error : null;
  return { room, state, isJoined: state === 'joined', messages: list, error, publish };
}

/** Who is in a room, as a component sees it. */
export interface UsedPresence {
  /** In the order of their names; at most as many as the server lists. */
  members: readonly { user_id: string; data: unknown }[];
  /** How many there are, listed or not; 0 while it is not known. */
  total: number;
  /** Whether members are told by their names; where they are too many there is only `total`. */
  isNamed: boolean;
  /** Whether it is known. */
  isKnown: boolean;
  /** Sets what others see of this user. */
  update(data: unknown): Promise<void>;
}

/** Follows who comes and goes in a room, and is in it, as long as the component is mounted. */
export function usePresence(name: string): UsedPresence {
  const [room] = useRoomState<unknown>(name);
  const subscribe = useCallback(
    (changed: () => void) => {
      const offs = [room.on('presence', changed), room.on('state', changed)];
      return () => {
        for (const off of offs) off();
      };
    },
    [room],
  );
  const read = (): Presence | null => room.presence;
  const presence = useSyncExternalStore(subscribe, read, read);
  useEffect(() => {
    const release = retain(
      room,
      () => {},
      () => void room.leave(),
    );
    room.join({ presence: true }).catch(() => {});
    return release;
  }, [room]);
  const members = useMemo(() => {
    const list = [...(presence?.members.values() ?? [])];
    return list.sort((a, b) => (a.user_id < b.user_id ? -1 : a.user_id > b.user_id ? 1 : 0));
  }, [presence]);
  const update = useCallback((data: unknown) => room.updatePresence(data), [room]);
  const { total = 0, isNamed = false } = presence ?? {};
  return { members, total, isNamed, isKnown: presence !== null, update };
}

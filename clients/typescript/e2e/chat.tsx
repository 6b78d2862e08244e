// A chat over protocol v2. It must never hold a client of its own: the provider gives it one.

import { useClientState, usePresence, useRoom, useRoomkeeper } from '@roomkeeper/client/react';
import { useEffect, useState } from 'react';

export function Chat({ room }: { room: string }) {
  const { phase } = useClientState();
  const { isJoined, messages, publish } = useRoom<string>(room, { keep: 1000 });
  const { members } = usePresence(room);
  const [text, setText] = useState('');
  const client = useRoomkeeper();
  const [losses, setLosses] = useState<string[]>([]);
  useEffect(() => client.on('lost', ({ text: words }) => setLosses((before) => [...before, words])), [client]);
  return (
    <section>
      <h2>Chat</h2>
      <p id="chat-state">{isJoined ? 'joined' : phase}</p>
      <p id="members">{members.map(({ user_id }) => user_id).join(', ')}</p>
      <p id="losses">{losses.length}</p>
      <p id="loss">{losses.at(-1)}</p>
      <ol id="messages">
        {messages.map(({ offset, data }) => (
          <li key={offset}>{data}</li>
        ))}
      </ol>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void publish(text);
          setText('');
        }}
      >
        <input id="say" value={text} onChange={(event) => setText(event.target.value)} aria-label="Message" />
      </form>
    </section>
  );
}

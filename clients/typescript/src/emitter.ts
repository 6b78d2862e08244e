// Listeners that can't hurt each other: one that throws is reported, and the next is called all the same.
//
// It must never let an exception out, nor call a listener after it was taken off.

/** Takes a listener off again. */
export type Unsubscribe = () => void;

type Listener = (value: never) => unknown;

/** Where exceptions go of what is the application's own: listeners, logs, delays. */
export const report = (error: unknown): void => console.error('[WS]', error);

/** Several kinds of events by name. */
export class Events<Map extends object> {
  readonly #listeners = new Set<readonly [keyof Map, Listener]>();

  on<K extends keyof Map>(name: K, listener: (value: Map[K]) => unknown): Unsubscribe {
    // The same function may be there twice.
    const entry = [name, listener as Listener] as const;
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }

  emit<K extends keyof Map>(name: K, value: Map[K]): void {
    for (const entry of [...this.#listeners]) {
      try {
        if (entry[0] === name && this.#listeners.has(entry)) {
          (entry[1](value as never) as Partial<Promise<unknown>> | undefined)?.catch?.(report);
        }
      } catch (error) {
        report(error);
      }
    }
  }
}

// Listeners that can't hurt each other: one that throws is reported, and the next is called all the same.
//
// It must never let an exception out, nor call a listener after it was taken off.

/** Takes a listener off again. */
export type Unsubscribe = () => void;

/** Where exceptions of listeners go. */
const report = (error: unknown): void => console.error('[WS] a listener failed:', error);

/** One kind of event. */
export class Emitter<T> {
  readonly #listeners = new Set<(value: T) => unknown>();

  on(listener: (value: T) => unknown): Unsubscribe {
    // The same function may be there twice.
    const own = (value: T) => listener(value);
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  emit(value: T): void {
    for (const listener of [...this.#listeners]) {
      if (!this.#listeners.has(listener)) continue;
      try {
        (listener(value) as Partial<Promise<unknown>> | undefined)?.catch?.(report);
      } catch (error) {
        report(error);
      }
    }
  }
}

/** Several kinds of events by name. */
export class Events<Map extends object> {
  readonly #emitters: { [K in keyof Map]?: Emitter<Map[K]> } = {};

  on<K extends keyof Map>(name: K, listener: (value: Map[K]) => unknown): Unsubscribe {
    this.#emitters[name] ??= new Emitter<Map[K]>();
    return this.#emitters[name].on(listener);
  }

  emit<K extends keyof Map>(name: K, value: Map[K]): void {
    this.#emitters[name]?.emit(value);
  }
}

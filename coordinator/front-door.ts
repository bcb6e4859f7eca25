import { LockstepError } from "#lib/core/errors/index";
import {
  type CompleteTaskReply,
  type CompleteTaskRequest,
  type ControlHandlers,
  type HeartbeatRequest,
  type LeaveRequest,
  type NextTaskRequest,
  protocolVersion,
  type RegisterReply,
  type RegisterRequest,
  type ReportFailureRequest,
  type Task,
} from "#lib/wire/control-messages";
import { registerControlService } from "#lib/wire/control-server";
import type { EventBus } from "#lib/wire/event-bus";
import { GrpcServer } from "#lib/wire/grpc-server";
import { maxControlMessageBytes } from "#lib/wire/limits";
import type { MemberPass } from "#lib/wire/member";
import type { WireSecurity } from "#lib/wire/security";

interface FrontDoorOptions {
  readonly bus: EventBus;
  readonly security: WireSecurity;
  readonly listenHost: string;
  /** 0 takes any free port. */
  readonly listenPort: number;
}

/** After which a worker that came too early asks again. */
const askAgainAfterMs = 250;

/**
 * Where workers knock: listens before the job is known, tells those that come early to ask again, and
 * remembers the first, whose device may decide what is still open in the job.
 */
export class FrontDoor implements ControlHandlers {
  readonly #server: GrpcServer;
  readonly #firstDevice: Promise<RegisterRequest>;
  #announce: (request: RegisterRequest) => void = () => {};
  #giveUp: (error: unknown) => void = () => {};
  #inner: ControlHandlers | undefined;
  #port = 0;
  #over: { readonly directory: string; readonly onTold: (worker: string) => void } | undefined;

  private constructor({ bus, security }: FrontDoorOptions) {
    this.#firstDevice = new Promise((resolve, reject) => {
      this.#announce = resolve;
      this.#giveUp = reject;
    });
    // Nobody may be waiting for it.
    this.#firstDevice.catch(() => {});
    this.#server = new GrpcServer({
      security,
      maxReceiveBytes: maxControlMessageBytes,
      onHandled: (method, code, seconds) =>
        bus.publish({ type: "rpc.handled", method, code, seconds }),
    });
    registerControlService(this.#server, this);
  }

  /** @throws E_INSECURE_BIND, E_PORT_IN_USE */
  static async open(options: FrontDoorOptions): Promise<FrontDoor> {
    const door = new FrontDoor(options);
    try {
      door.#port = await door.#server.listen(options.listenHost, options.listenPort);
    } catch (error) {
      await door.close(0);
      throw error;
    }
    return door;
  }

  get port(): number {
    return this.#port;
  }

  /** The first worker that came, once one has. */
  async firstDevice(): Promise<RegisterRequest> {
    return this.#firstDevice;
  }

  /** Whoever waits for the first worker waits in vain. */
  fail(error: unknown): void {
    this.#giveUp(error);
  }

  /** The job is known: workers get in from now on. */
  attach(inner: ControlHandlers): void {
    this.#inner = inner;
  }

  /**
   * There is nothing left to do: whoever knocks is told so.
   * @param onTold called with what tells one process from another
   */
  turnAway(directory: string, onTold: (worker: string) => void): void {
    this.#over = { directory, onTold };
  }

  async close(graceMs?: number): Promise<void> {
    await this.#server.close(graceMs);
  }

  async register(request: RegisterRequest, peer: string): Promise<RegisterReply> {
    if (request.protocolVersion !== protocolVersion) {
      throw new LockstepError("E_PROTOCOL_VERSION", {
        expected: protocolVersion,
        got: request.protocolVersion,
        peer,
      });
    }
    if (this.#over !== undefined) {
      const { directory, onTold } = this.#over;
      onTold(request.incarnation);
      throw new LockstepError("E_RUN_OVER", { directory });
    }
    this.#announce(request);
    if (this.#inner !== undefined) return this.#inner.register(request, peer);
    const nothing = { workerId: "", jobJson: "", shardAddresses: [], heartbeatIntervalMs: 0 };
    return { ...nothing, runId: "", epoch: 0, memberSecret: "", retryAfterMs: askAgainAfterMs };
  }

  admit(pass: MemberPass, workerId: string): void {
    this.#behind(workerId).admit(pass, workerId);
  }

  async nextTask(request: NextTaskRequest, signal: AbortSignal): Promise<Task> {
    return this.#behind(request.workerId).nextTask(request, signal);
  }

  async completeTask(request: CompleteTaskRequest): Promise<CompleteTaskReply> {
    return this.#behind(request.workerId).completeTask(request);
  }

  async heartbeat(request: HeartbeatRequest): Promise<void> {
    return this.#behind(request.workerId).heartbeat(request);
  }

  async leave(request: LeaveRequest): Promise<void> {
    return this.#behind(request.workerId).leave(request);
  }

  async reportFailure(request: ReportFailureRequest): Promise<void> {
    return this.#behind(request.workerId).reportFailure(request);
  }

  /** A worker that a former coordinator knew is told to register. */
  #behind(worker: string): ControlHandlers {
    if (this.#inner === undefined) throw new LockstepError("E_UNKNOWN_WORKER", { worker });
    return this.#inner;
  }
}

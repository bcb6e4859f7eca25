import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import { LockstepError } from "#lib/core/errors/index";
import {
  type CheckWeightsReply,
  type CheckWeightsRequest,
  type CompleteTaskReply,
  type CompleteTaskRequest,
  type ControlHandlers,
  type HeartbeatReply,
  type HeartbeatRequest,
  type Knock,
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
import { laterReply } from "./control-service.js";
import type { DeviceKinds } from "./device-kinds.js";
import { farewellTimeoutMs } from "./limits.js";
import { refusalsOf } from "./refused-connections.js";
import { Strays } from "./strays.js";

interface FrontDoorOptions {
  readonly bus: EventBus;
  readonly security: WireSecurity;
  /** Says who may come in. */
  readonly kinds: DeviceKinds;
  readonly listenHost: string;
  /** 0 takes any free port. */
  readonly listenPort: number;
}

/** How a run ended, for those that knock afterwards. */
type Goodbye =
  | {
      readonly kind: "finished";
      readonly runId: string;
      /** Where its result is. */
      readonly directory: string;
      readonly onTold?: OnTold;
    }
  /** It may go on at this address. It has no id, "", where it was stopped before it began. */
  | { readonly kind: "stopped"; readonly runId: string; readonly onTold?: OnTold };

/** Called with what tells one process from another. */
type OnTold = (worker: string) => void;

/** After which a worker that came too early asks again. */
const askAgainAfterMs = 250;

/**
 * Where workers knock: listens before the job is known, and tells those that come early to ask again, whose
 * devices may decide what is still open in the job.
 */
export class FrontDoor implements ControlHandlers {
  readonly kinds: DeviceKinds;
  readonly strays = new Strays(awakeMs);
  readonly #server: GrpcServer;
  readonly #bus: EventBus;
  #inner: ControlHandlers | undefined;
  #port = 0;
  #goodbye: Goodbye | undefined;
  #isWaitTold = false;
  /** When members heard of the run's end by a heartbeat. */
  readonly #toldAtMs = new Map<string, number>();

  private constructor({ bus, security, kinds }: FrontDoorOptions) {
    this.kinds = kinds;
    this.#bus = bus;
    this.#server = new GrpcServer({
      security,
      maxReceiveBytes: maxControlMessageBytes,
      onHandled: (method, code, seconds) =>
        bus.publish({ type: "rpc.handled", method, code, seconds }),
      onTlsNews: (text) => bus.publish({ type: "note", text }),
      onRefusedConnections: refusalsOf(bus, "control"),
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

  /** The job is known: workers get in from now on. */
  attach(inner: ControlHandlers): void {
    this.#inner = inner;
  }

  /** Whoever takes part has to join anew, once the job is attached again. */
  detach(): void {
    this.#inner = undefined;
  }

  /**
   * Whoever knocks is told how the run ended. One that waits for another run to come back to this address is told
   * that it is not this one.
   */
  turnAway(goodbye: Goodbye): void {
    this.#goodbye = goodbye;
  }

  /**
   * Until nobody is here who has not been told; who is silent is not waited for.
   *
   * @param members ids of those that take part
   * @param heartbeatIntervalMs one that computes, or makes its engine, asks for no work, and is told so soon
   */
  async untilAllLeft(
    members = (): readonly { readonly workerId: string }[] => [],
    heartbeatIntervalMs = 0,
  ): Promise<void> {
    const since = awakeMs();
    const membersMs = heartbeatIntervalMs + farewellTimeoutMs.members;
    const isToldLongAgo = (workerId: string): boolean =>
      awakeMs() - (this.#toldAtMs.get(workerId) ?? Number.POSITIVE_INFINITY) >
      farewellTimeoutMs.told;
    const isAwaited = (): boolean => {
      const passedMs = awakeMs() - since;
      const isOneHere = members().some(({ workerId }) => !isToldLongAgo(workerId));
      if (isOneHere && passedMs < membersMs) return true;
      return this.strays.size > 0 && passedMs < farewellTimeoutMs.strays;
    };
    while (isAwaited()) await delay(20);
  }

  /** Whether a member heard of the run's end by a heartbeat. */
  hasTold(workerId: string): boolean {
    return this.#toldAtMs.has(workerId);
  }

  async close(graceMs?: number): Promise<void> {
    await this.#server.close(graceMs);
  }

  async register(request: RegisterRequest, knock: Knock): Promise<RegisterReply> {
    const { peer, formerRunId } = knock;
    if (request.protocolVersion !== protocolVersion) {
      throw new LockstepError("E_PROTOCOL_VERSION", {
        expected: protocolVersion,
        got: request.protocolVersion,
        peer,
      });
    }
    this.strays.settled(request.incarnation);
    if (this.#goodbye !== undefined) this.#sayGoodbye(this.#goodbye, request, formerRunId);
    const reply = await this.#registered(request, knock);
    if (reply.retryAfterMs > 0) this.strays.noted(request.incarnation);
    return reply;
  }

  async #registered(request: RegisterRequest, knock: Knock): Promise<RegisterReply> {
    if (this.#inner === undefined) this.kinds.knocked(request, knock.certificate);
    else if (this.kinds.admits(request, knock.certificate)) {
      return this.#inner.register(request, knock);
    } else this.#tellWait();
    return laterReply(askAgainAfterMs, "");
  }

  /** @throws E_RUN_OVER, E_OTHER_RUN, E_RUN_STOPPED */
  #sayGoodbye(goodbye: Goodbye, { incarnation }: RegisterRequest, formerRunId: string): never {
    const { runId, onTold } = goodbye;
    onTold?.(incarnation);
    if (goodbye.kind === "finished" && formerRunId !== "" && formerRunId !== runId) {
      const { directory } = goodbye;
      throw new LockstepError("E_OTHER_RUN", { expected: formerRunId, found: runId, directory });
    }
    throw endOf(goodbye);
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

  async checkWeights(request: CheckWeightsRequest): Promise<CheckWeightsReply> {
    return this.#behind(request.workerId).checkWeights(request);
  }

  /**
   * At the end of the run whoever asks for no work hears of it here, be it that it computes what others have done
   * beside it, or makes its engine. It is a member until the door is closed, as it may be about to leave by itself.
   *
   * @throws E_RUN_OVER, E_RUN_STOPPED
   */
  async heartbeat(request: HeartbeatRequest): Promise<HeartbeatReply> {
    const { workerId } = request;
    const reply = await this.#behind(workerId).heartbeat(request);
    if (this.#goodbye === undefined) return reply;
    if (!this.#toldAtMs.has(workerId)) this.#toldAtMs.set(workerId, awakeMs());
    throw endOf(this.#goodbye);
  }

  async leave(request: LeaveRequest): Promise<void> {
    return this.#behind(request.workerId).leave(request);
  }

  async reportFailure(request: ReportFailureRequest): Promise<void> {
    return this.#behind(request.workerId).reportFailure(request);
  }

  #tellWait(): void {
    if (this.#isWaitTold || this.kinds.kind !== undefined) return;
    this.#isWaitTold = true;
    const detail = this.kinds.waiting;
    this.#bus.publish({ type: "phase.changed", phase: "waiting-for-workers", detail });
  }

  /** A worker that a former coordinator knew is told to register. */
  #behind(worker: string): ControlHandlers {
    if (this.#inner === undefined) throw new LockstepError("E_UNKNOWN_WORKER", { worker });
    return this.#inner;
  }
}

/** Why members leave. */
export const reasonOf = ({ kind }: Pick<Goodbye, "kind">): string =>
  kind === "stopped" ? "the run was stopped" : "the job is over";

const endOf = (goodbye: Goodbye): LockstepError =>
  goodbye.kind === "stopped"
    ? new LockstepError("E_RUN_STOPPED", { runId: goodbye.runId })
    : new LockstepError("E_RUN_OVER", { directory: goodbye.directory });

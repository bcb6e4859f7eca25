import type grpc from "@grpc/grpc-js";
import { controlMethods } from "./control-codec.js";
import { maxControlTextChars } from "./message-fields.js";
import type {
  CheckWeightsReply,
  CheckWeightsRequest,
  CompleteTaskReply,
  CompleteTaskRequest,
  HeartbeatReply,
  HeartbeatRequest,
  LeaveRequest,
  NextTaskRequest,
  RegisterReply,
  RegisterRequest,
  ReportFailureRequest,
  Task,
} from "./control-messages.js";
import { callUnary, createChannelClient } from "./grpc-client.js";
import { controlTimeoutMs, maxControlMessageBytes } from "./limits.js";
import { type MemberPass, passEntries } from "./member.js";
import type { WireSecurity } from "./security.js";

/** A worker's side of the control service. Every call has a deadline. */
export class ControlClient {
  readonly address: string;
  readonly #client: grpc.Client;
  readonly #security: WireSecurity;
  readonly #timeoutMs: number;
  /** Of the registration that calls are of. */
  #pass: MemberPass | undefined;

  constructor(options: {
    readonly address: string;
    readonly security: WireSecurity;
    readonly timeoutMs?: number;
    /** As of createChannelClient. */
    readonly onTlsNews?: (line: string) => void;
  }) {
    this.address = options.address;
    this.#security = options.security;
    this.#timeoutMs = options.timeoutMs ?? controlTimeoutMs;
    this.#client = createChannelClient({
      address: options.address,
      security: options.security,
      maxReceiveBytes: maxControlMessageBytes,
      onTlsNews: options.onTlsNews,
    });
  }

  /** From now on calls are of this registration. */
  usePass(pass: MemberPass): void {
    this.#pass = pass;
  }

  async register(request: RegisterRequest): Promise<RegisterReply> {
    return this.#call(controlMethods.register, request);
  }

  /** Waits up to `maxWaitMs` for work, then gets `wait`. */
  async nextTask(request: NextTaskRequest, signal?: AbortSignal): Promise<Task> {
    return this.#call(controlMethods.nextTask, request, request.maxWaitMs, signal);
  }

  async completeTask(
    request: CompleteTaskRequest,
    signal?: AbortSignal,
  ): Promise<CompleteTaskReply> {
    return this.#call(controlMethods.completeTask, request, 0, signal);
  }

  async checkWeights(
    request: CheckWeightsRequest,
    signal?: AbortSignal,
  ): Promise<CheckWeightsReply> {
    return this.#call(controlMethods.checkWeights, request, 0, signal);
  }

  async heartbeat(request: HeartbeatRequest, signal?: AbortSignal): Promise<HeartbeatReply> {
    return this.#call(controlMethods.heartbeat, request, 0, signal);
  }

  async leave(request: LeaveRequest): Promise<void> {
    await this.#call(controlMethods.leave, request);
  }

  async reportFailure(request: ReportFailureRequest): Promise<void> {
    const message = request.message.slice(0, maxControlTextChars);
    await this.#call(controlMethods.reportFailure, { ...request, message });
  }

  close(): void {
    this.#client.close();
  }

  async #call<Request, Reply>(
    definition: grpc.MethodDefinition<Request, Reply>,
    request: Request,
    extraMs = 0,
    signal?: AbortSignal,
  ): Promise<Reply> {
    return callUnary(this.#client, definition, request, {
      address: this.address,
      security: this.#security,
      timeoutMs: this.#timeoutMs + extraMs,
      signal,
      entries: this.#pass === undefined ? {} : passEntries(this.#pass),
    });
  }
}

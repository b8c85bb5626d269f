// A Matrix client on matrix-js-sdk that a test drives: one JSON command a line on stdin, answers and events a line each on stdout.
//
//   {"id": 1, "do": "register", "username": "...", "password": "..."}   →  {"id": 1, "result": {...}}  or  {"id": 1, "error": "..."}
//   {"event": "message" | "typing" | "receipt" | "invite", ...}              as they arrive by sync
//
// crypto.mjs has the commands and events of encryption.

import { createInterface } from "node:readline";

// stdout is for answers and events alone; what the SDK logs is kept from it before the SDK is loaded.
for (const level of ["log", "debug", "info", "trace", "warn"]) console[level] = () => {};
const sdk = await import("matrix-js-sdk");
const api = await import("matrix-js-sdk/lib/crypto-api/index.js");
const { Vault, cryptoCommands } = await import("./crypto.mjs");

const baseUrl = process.argv[2];
const vault = new Vault();
let client;

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function clientOf({ user_id: userId, access_token: accessToken, device_id: deviceId }) {
    client = sdk.createClient({ baseUrl, userId, accessToken, deviceId, cryptoCallbacks: vault.callbacks });
}

function listen() {
    const told = new Set();
    const tell = (event) => {
        if (event.getType() !== "m.room.message" || event.status !== null || event.isDecryptionFailure()) return;
        if (told.has(event.getId())) return;
        told.add(event.getId());
        say({
            event: "message", room: event.getRoomId(), sender: event.getSender(), id: event.getId(),
            content: event.getContent(), encrypted: event.isEncrypted(),
        });
    };
    client.on(sdk.RoomEvent.Timeline, (event, _room, toStartOfTimeline) => toStartOfTimeline || tell(event));
    client.on(sdk.MatrixEventEvent.Decrypted, tell);
    // Our own messages are in the timeline before they are sent; they count when sync has brought them back.
    client.on(sdk.RoomEvent.LocalEchoUpdated, tell);
    client.on(sdk.RoomMemberEvent.Typing, (_event, member) => {
        say({ event: "typing", room: member.roomId, user: member.userId, typing: member.typing });
    });
    client.on(sdk.RoomEvent.Receipt, (event, room) => {
        say({ event: "receipt", room: room.roomId, content: event.getContent() });
    });
    client.on(sdk.RoomEvent.MyMembership, (room, membership) => {
        if (membership === "invite") say({ event: "invite", room: room.roomId });
    });
}

const commands = {
    ...cryptoCommands({ sdk, api, current: () => client, vault, say }),
    async register({ username, password }) {
        const anonymous = sdk.createClient({ baseUrl });
        const answer = await anonymous.registerRequest({ username, password, auth: { type: "m.login.dummy" } });
        clientOf(answer);
        return answer;
    },
    async login({ username, password }) {
        const identifier = { type: "m.id.user", user: username };
        const answer = await sdk.createClient({ baseUrl }).loginRequest({ type: "m.login.password", identifier, password });
        clientOf(answer);
        return answer;
    },
    async start() {
        listen();
        const prepared = new Promise((resolve, reject) => {
            client.on(sdk.ClientEvent.Sync, (state, _previous, data) => {
                if (state === "PREPARED") resolve();
                if (state === "ERROR" && process.env.SYNC_ERRORS_ARE_FATAL) reject(data.error);
            });
        });
        await client.startClient({ initialSyncLimit: 20, pollTimeout: 20000 });
        await prepared;
        return {};
    },
    createRoom: (options) => client.createRoom(options),
    invite: ({ room, user }) => client.invite(room, user),
    async join({ room }) { return { room_id: (await client.joinRoom(room)).roomId }; },
    send: ({ room, body, txn }) => client.sendEvent(room, "m.room.message", { msgtype: "m.text", body }, txn),
    typing: ({ room, typing }) => client.sendTyping(room, typing, 20000),
    async read({ room, eventId }) {
        await client.sendReadReceipt(client.getRoom(room).findEventById(eventId));
        return {};
    },
    async upload({ base64, type, name }) {
        return client.uploadContent(new Blob([Buffer.from(base64, "base64")], { type }), { name, type });
    },
    sendImage: ({ room, url, body, info }) => client.sendMessage(room, { msgtype: "m.image", url, body, info }),
    async download({ url }) {
        const http = client.mxcUrlToHttp(url, undefined, undefined, undefined, false, true, true);
        const response = await fetch(http, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
        if (!response.ok) throw new Error(`download: ${response.status}`);
        return { base64: Buffer.from(await response.arrayBuffer()).toString("base64"), type: response.headers.get("content-type") };
    },
    async stop() {
        client?.stopClient();
        setTimeout(() => process.exit(0), 50);
        return {};
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    const { id, do: name, ...options } = command;
    commands[name](options).then(
        (result) => say({ id, result: result ?? {} }),
        (error) => say({ id, error: String(error?.stack ?? error) }),
    );
}

// What a client of client.mjs does with encryption: cross-signing, secret storage, key backup, verification, as the SDK's Rust crypto does them.
//
//   {"event": "verification", "user": ..., "device": ...}                a request that can be accepted
//   {"event": "sas", "user": ..., "emoji": ["Dog", ...]}                  what both sides are to compare
//   {"event": "verified", "user": ..., "error": null | "..."}            how a verification ended
//   {"event": "trust", "users": [...]}                                   whose keys or signatures have changed: see trustIn
//   {"event": "backup", "remaining": number}                            room keys that are not in the backup yet

import { createHash } from "node:crypto";

const SAS = "m.sas.v1";

// The two sides of secret storage: what unlocks it, as long as the client runs.
export class Vault {
    key = null;
    callbacks = {
        getSecretStorageKey: async ({ keys }) => (this.key ? [Object.keys(keys)[0], this.key] : null),
        cacheSecretStorageKey: () => {},
    };
}

export function cryptoCommands({ sdk, api, current, vault, say }) {
    const crypto = () => current().getCrypto();
    const requests = new Map(); // by the other user's id: the verification under way
    const shown = new Map(); // by the other user's id: what confirms the emoji

    function follow(request) {
        requests.set(request.otherUserId, request);
        const onChange = () => {
            if (request.phase === api.VerificationPhase.Started && request.verifier) run(request);
        };
        request.on(api.VerificationRequestEvent.Change, onChange);
        onChange();
    }

    function run(request) {
        if (request.runs) return;
        request.runs = true;
        const { verifier, otherUserId: user } = request;
        verifier.on(api.VerifierEvent.ShowSas, (sas) => {
            shown.set(user, sas);
            say({ event: "sas", user, emoji: sas.sas.emoji.map(([, name]) => name) });
        });
        verifier.verify().then(
            () => say({ event: "verified", user, error: null }),
            (error) => say({ event: "verified", user, error: String(error?.stack ?? error) }),
        );
    }

    const phase = (request, wanted) => new Promise((resolve, reject) => {
        const look = () => {
            if (request.phase === wanted) resolve();
            if (request.phase === api.VerificationPhase.Cancelled) reject(new Error(`cancelled: ${request.cancellationCode}`));
        };
        request.on(api.VerificationRequestEvent.Change, look);
        look();
    });

    // Gives the password where the server asks for it, and notes what it asked for.
    const prover = (password, stages) => async (makeRequest) => {
        try {
            return await makeRequest(null);
        } catch (error) {
            if (error.httpStatus !== 401) throw error;
            stages.push(...error.data.flows.flatMap((flow) => flow.stages));
            return makeRequest({
                type: "m.login.password", session: error.data.session, password,
                identifier: { type: "m.id.user", user: current().getUserId() },
            });
        }
    };

    return {
        async startCrypto() {
            const client = current();
            await client.initRustCrypto({ useIndexedDB: false });
            client.on(api.CryptoEvent.VerificationRequestReceived, (request) => {
                requests.set(request.otherUserId, request);
                say({ event: "verification", user: request.otherUserId, device: request.otherDeviceId, room: request.roomId });
            });
            client.on(api.CryptoEvent.UserTrustStatusChanged, (user) => say({ event: "trust", users: [user] }));
            client.on(api.CryptoEvent.DevicesUpdated, (users) => say({ event: "trust", users }));
            client.on(api.CryptoEvent.KeyBackupSessionsRemaining, (remaining) => say({ event: "backup", remaining }));
            return crypto().getOwnDeviceKeys();
        },

        // Cross-signing keys, secret storage that holds them, and a key backup.
        async bootstrap({ password }) {
            await crypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: prover(password, []) });
            const made = await crypto().createRecoveryKeyFromPassphrase();
            vault.key = made.privateKey;
            await crypto().bootstrapSecretStorage({
                createSecretStorageKey: async () => made, setupNewSecretStorage: true, setupNewKeyBackup: true,
            });
            await crypto().checkKeyBackupAndEnable();
            return { recoveryKey: made.encodedPrivateKey, backup: await crypto().getActiveSessionBackupVersion() };
        },

        // Whether every room key that this client has is in the backup.
        async backedUp() {
            const kept = await current().http.authedRequest(sdk.Method.Get, "/room_keys/version"); // the SDK remembers it
            return { all: kept.count === (await crypto().exportRoomKeys()).length };
        },

        // A new identity in place of the old one; answers which stages the server asked for.
        async reset({ password }) {
            const stages = [];
            await crypto().resetEncryption(prover(password, stages));
            return { stages, backup: await crypto().getActiveSessionBackupVersion() };
        },

        // On another device: everything that the recovery key opens.
        async recover({ recoveryKey }) {
            vault.key = api.decodeRecoveryKey(recoveryKey);
            await crypto().userHasCrossSigningKeys(current().getUserId(), true); // their private parts are imported to these
            await crypto().bootstrapCrossSigning({});
            await crypto().loadSessionBackupPrivateKeyFromSecretStorage();
            await crypto().checkKeyBackupAndEnable();
            const { total, imported } = await crypto().restoreKeyBackup();
            return { total, imported, ready: await crypto().isCrossSigningReady(), backup: await crypto().getActiveSessionBackupVersion() };
        },

        // A device that waits while nobody is logged in; answers its id.
        async dehydrate() {
            if (!(await crypto().isDehydrationSupported())) throw new Error("no dehydrated devices here");
            await crypto().startDehydration({ createNewKey: true });
            return current().http.authedRequest(sdk.Method.Get, "/dehydrated_device", undefined, undefined, {
                prefix: "/_matrix/client/unstable/org.matrix.msc3814.v1",
            });
        },
        // What that device has received; then there is a new one.
        async rehydrate() {
            const heard = new Promise((resolve, reject) => {
                let keys = 0;
                current().on(api.CryptoEvent.RehydrationProgress, (roomKeys) => { keys = roomKeys; });
                current().on(api.CryptoEvent.RehydrationCompleted, () => resolve({ keys }));
                current().on(api.CryptoEvent.RehydrationError, (message) => reject(new Error(message)));
            });
            await crypto().startDehydration();
            return heard;
        },

        async requestVerification({ user, device }) {
            const request = device
                ? await crypto().requestDeviceVerification(user, device)
                : await crypto().requestOwnUserVerification();
            requests.set(request.otherUserId, request);
            return {};
        },
        async acceptVerification({ user }) {
            const request = requests.get(user);
            await request.accept();
            follow(request);
            return {};
        },
        // For who has asked: begins to compare as soon as the other side has accepted.
        async startVerification({ user }) {
            const request = requests.get(user);
            await phase(request, api.VerificationPhase.Ready);
            await request.startVerification(SAS);
            follow(request);
            return {};
        },
        async confirmVerification({ user }) {
            await shown.get(user).confirm();
            return {};
        },

        // What this client thinks of a user's device, so far as it has heard.
        async trustIn({ user, device }) {
            const devices = (await crypto().getUserDeviceInfo([user], true)).get(user);
            const [ofUser, ofDevice] = [await crypto().getUserVerificationStatus(user), await crypto().getDeviceVerificationStatus(user, device)];
            return {
                devices: [...(devices?.keys() ?? [])].sort(),
                user: ofUser.isCrossSigningVerified(),
                signedByOwner: ofDevice?.signedByOwner ?? null,
                device: ofDevice?.crossSigningVerified ?? null,
            };
        },
        async masterKeyHash({ user }) {
            const keys = await crypto().getUserCrossSigningKeys(user);
            return { hash: keys?.master_key ? createHash("sha256").update(JSON.stringify(keys.master_key.keys)).digest("hex") : null };
        },
        // A new outbound session, so that the next message's key has to be shared with everybody anew.
        async rotate({ room }) {
            await crypto().forceDiscardSession(room);
            return {};
        },
    };
}

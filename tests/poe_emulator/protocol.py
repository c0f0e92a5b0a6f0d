"""The protocol as data: operation hashes, subscription lists and variable sets of both generations.

A *generation* is what one family of clients sends: ``legacy`` (mid 2025) or ``current`` (March 2026).
Hashes name persisted queries; the text of a query never travels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Generation = Literal["legacy", "current"]
Profile = Literal["legacy", "current", "both"]

TAG_SALT = "4LxgHM6KpFqokX0Ox"


@dataclass(frozen=True, slots=True)
class Operation:
    """One persisted query: its name and its hash per generation (None = that generation lacks it)."""

    name: str
    legacy: str | None
    current: str | None
    aliases: tuple[str, ...] = ()

    def hash_for(self, generation: Generation) -> str | None:
        return self.legacy if generation == "legacy" else self.current

    def is_called(self, name: str) -> bool:
        """Whether a query name is one of ours; the case of the first letter does not matter."""
        wanted = name[:1].upper() + name[1:]
        return any(wanted == known[:1].upper() + known[1:] for known in (self.name, *self.aliases))


def _both(name: str, digest: str, *aliases: str) -> Operation:
    return Operation(name, digest, digest, aliases)


OPERATIONS: tuple[Operation, ...] = (
    _both("SubscriptionsMutation", "5a7bfc9ce3b4e456cd05a537cfa27096f08417593b8d9b53f57587f3b7b63e99"),
    Operation(
        "SendMessageMutation",
        "f1486efc974a214dac6586c46b81bf631a95e58eab1d27b215f622859d74a23e",
        "5c04dd9cc92585936f45107e5ab42b8103cb19e963e475419854d8e2ebebaf08",
    ),
    Operation(
        "RegenerateMessageMutation",
        "056f5f4b6a39ca7786a4f0b2ef37eee401c81d6086cd78ffc12fe2ce0bccb1fd",
        "c57eb11b407a486eb95d94eb698707b66509e1f8b59e08b8e8bb8e1e51bcf426",
    ),
    Operation(
        "SettingsPageQuery",
        "b20810a037d823039caf7e5f3a6b11a72a26f9abb30f65a3858390a0bc58e32a",
        "7ad44151c552ceef568fb790cf1e3c12c72540c0139a853c1b751fb8c89a4a22",
    ),
    Operation(
        "HandleBotLandingPageQuery",
        "2997adcc7abe30f763da42eed3174b67fd1b60ac4a23dac794526448c2629a8d",
        "0df006a8445388a1b668f9e1e2ccb1347d64bffc04fce4ba3d59e16d388bba8f",
    ),
    Operation(
        "AvailableBotsSelectorModalPaginationQuery",
        "26214d2e2381b435992200b171b9f39f360cfd5d668c71b071d5575aa6c3c10e",
        "b044c1f843c1319070d8e2d1e65220f0dc15d50882d49b31ec32ee9ef4647454",
    ),
    _both("ExploreBotsListPaginationQuery", "b24b2f2f6da147b3345eec1a433ed17b6e1332df97dea47622868f41078a40cc"),
    Operation(
        "ExploreBotsIndexPageQuery",
        "13ad445fc3a55090f90d5d7bb0708e7fc5170717a77d695d305be0ee8e0c4b5d",
        "317a2e0504c3420f695ec5c7bda104716d3f874d7dc7de06e2eebf1560347d98",
    ),
    Operation(
        "SearchResultsListPaginationQuery",
        "f6d4b5bbec10438548a5f8feedac11001878efe2e31a3d0ecd7680a4decb5c66",
        "0a01eccff923e39952ce84831615b8c9c05be2faa664baebe6ad1eeca2f7992d",
    ),
    _both("ChatHistoryListPaginationQuery", "6ce01455b0201e625489da90c65f87a2809d212ea41ab6e39412b6913990e81f"),
    _both(
        "ChatHistoryFilteredListPaginationQuery",
        "b27c110fc75c59a23b660438b209a699f3911a7d3902e2a8e9728d2cc1c5d5b9",
    ),
    Operation(
        "ChatPageQuery",
        "e7dcf93e713a35a6b5642496b78339c9ef5ff0ae5e7e0c150ef534a738cced8c",
        "70ecb47b47398819532907eb31801749913d2809708633618206dbf7cbe4833a",
    ),
    _both("ChatListPaginationQuery", "c1a8fd96dd6e0a4679814182951b1e256e175587513c81b223addf931833a692"),
    _both(
        "DeleteChat",
        "5df4cb75c0c06e086b8949890b1871a9f8b9e431a930d5894d08ca86e9260a18",
        "useDeleteChat_deleteChat_Mutation",
    ),
    _both("DeleteMessageMutation", "8d1879c2e851ba163badb6065561183600fc1b9de99fc8b48b654eb65af92bed"),
    _both("DeleteUserMessagesMutation", "3f60d527c3f636f308b3a26fc3a0012be34ea1a201e47a774b4513d8a1ba8912"),
    Operation(
        "SendChatBreakMutation",
        "528382d26ae0a33020feddee41e5a02f837b9b09886dc29dc1d638fd7143d212",
        "f1c759d5a5248717860192964538f3658dbc91c52e8ca92a7adbfab9e6c5536d",
    ),
    _both(
        "StopMessage_messageCancel_Mutation",
        "d2d75098e1878758a5bcd39c89ff6c8c7f5fd633a4f432c234fede8cb743c2e6",
    ),
    Operation(
        "cancelViewerActiveJobs_cancelViewerActiveJobs_Mutation",
        None,
        "bec4c5fb9ea395932da3174c38da893ffaf7ab142130ef1f0f796526051a80de",
    ),
    Operation(
        "PointsHistoryPageColumnViewerPaginationQuery",
        None,
        "9b68fe8ea0017e5d7701c93a5db8323136f9cb023d514f8595ae0dde220be6d1",
    ),
)

_BY_HASH: dict[Generation, dict[str, Operation]] = {
    "legacy": {op.legacy: op for op in OPERATIONS if op.legacy},
    "current": {op.current: op for op in OPERATIONS if op.current},
}
_BY_NAME: dict[str, Operation] = {op.name: op for op in OPERATIONS}


def operation_with_hash(generation: Generation, digest: str) -> Operation | None:
    return _BY_HASH[generation].get(digest)


def hash_of(name: str, generation: Generation) -> str:
    """The hash a client of that generation sends for the operation; KeyError when it has none."""
    digest = _BY_NAME[name].hash_for(generation)
    if digest is None:
        raise KeyError(f"{generation} has no {name}")
    return digest


# The whole lists, in the order in which clients send them.
CURRENT_SUBSCRIPTIONS: dict[str, str] = {
    "chatMarkedAsUnseen": "490c2f0667243e085e01c8318618cb978a16840929fff630272a44e1a2d748e2",
    "messageAdded": "9bc4af8951e2f446fdd00399a4823b9b73c96a767b86a92078269e64725aa934",
    "messageCancelled": "14647e90e5960ec81fa83ae53d270462c3743199fbb6c4f26f40f4c83116d2ff",
    "messageDeleted": "da44e3fdd05dfde85d1c035471858e7201b0ef7ea7728df75b71707ffb2a5aa0",
    "messageDeletedV2": "6d0901c4738df2ee3b6cf737a244af7a2b3b26535149a1128a08b4cca2465eab",
    "messageReadV2": "35cd1f2905e26147effb38ad67280c54a8f13fbb67a36bbe6080619e70207aab",
    "messageReadByViewer": "984ea258538cf29e706807856070b5e95e25870089cdac7619d4499a441ef3dd",
    "messageEdited": "dad338006f002ede73ac0bf594ad22e104a1cd8bf43b6e605a0d79c97a28578e",
    "messageCreated": "7e94f09b61e69c5621c3af8de849d7a87cfa469a577ea0a63a2430cda9968f36",
    "messageStateUpdated": "117a49c685b4343e7e50b097b10a13b9555fedd61d3bf4030c450dccbeef5676",
    "messageAttachmentAdded": "65798bb2f409d9457fc84698479f3f04186d47558c3d7e75b3223b6799b6788d",
    "messageFollowupActionAdded": "d2e770beae7c217c77db4918ed93e848ae77df668603bc84146c161db149a2c7",
    "messageMetadataUpdated": "71c247d997d73fb0911089c1a77d5d8b8503289bc3701f9fb93c9b13df95aaa6",
    "messageReactionsUpdated": "975515f0096656b4f98508da9f015b24cfe63b1e44f06ab0e27fae4fa23ecae3",
    "messageTextUpdated": "800eea48edc9c3a81aece34f5f1ff40dc8daa71dead9aec28f2b55523fe61231",
    "jobStarted": "c8b0a1fa651db0384cb8bc56bbe4f1d6c0cef28bd1e8176c0d0be2a20bb75fc7",
    "jobUpdated": "961c92a9b49fa30e67ee1a9c6a276a92829aecf9135000d6ba69efaf15df91a3",
    "jobCostUpdated": "a72e7590abe1c18fcb9dfcaf43103a35d86eef966197c28db6f5876c00c0a74c",
    "viewerStateUpdated": "0c9cbf7513f7af97f419eec1ca6d848fa6425d2715e03318110a41f9a08fb0b6",
    "canvasTabClosed": "7b26a0f049c7742c4484ea0cbd98dcdd97f31638fd01c0ee988b8cbf9e967328",
    "canvasTabOpened": "49ad669f3eb1f83366b42947f2704a1ce3157062f963b54a535a9e9b06242a15",
    "canvasTabBackgrounded": "08158bb1faedc52a0c6f42ecfbc3afe7ffaec22dcd92731a6ce3d870273c6553",
    "onDataToForwardToCanvasTab": "3306309cb5a1d7e19867ced094f779a22d28c5c6fc617dfa136d11f51c7cee0c",
    "chatTitleUpdated": "ee062b1f269ecd02ea4c2a3f1e4b2f222f7574c43634a2da4ebeb616d8647e06",
    "chatDeletedV2": "847388a799b3c8ce51ecf0b9aa9163242f409cd5432b4e49c0f71014c66b04eb",
    "chatDeletedV3": "51e2f60da61b7ef9b8a5bd85e95e3b5ce17c1a6651cf692014a3aaae3fd3e458",
    "chatAddedV2": "a5206e59f0e7fbd603921ee111b7a48f7dbbd55270ce1f69cdd3d1039911ca67",
    "knowledgeSourceUpdated": "7de63f89277bcf54f2323008850573809595dcef687f26a78561910cfd4f6c37",
    "chatMemberAddedWithContext": "e9c6a41bf62e876fa4cb735f31c54ca75eeac0af170019df6ab1d6396ed94726",
    "chatMemberRemoved": "fc640db462e081168e20c8194fe6e7e219228b6fa2bd19735158eb066507e212",
    "userRemovedFromChat": "ac46d057797562a5d0f1d2c05410cd5d42da3e6f54e07cc56629d307d0df0944",
    "userRemovedFromChatV2": "bbefe65bc9ebcf6d053ec46ce054abd2bb95e3b77c25136b0ac1b79a77b061b0",
    "chatSettingsUpdated": "76806efbd2d584ba9e2e515f79045a8fb2015ecb5b8e9a25bade2843fcf5fee7",
    "chatModalStateChanged": "679b09b1c45951a4d7e6a4b72bb248819de70c94b8043a0f5b81fd267abf2269",
    "defaultBotOfChatChanged": "2bacc089fc4432fae0fa9952b2dbb5150af9be1fc67a04438b21547af5093173",
    "messageFollowupActionUpdated": "be87f2ee5ba5cef5980ec863ad6bc217f921f16032c0cb028ee8af522cf2136b",
    "chatMuteStatusUpdated": "97563dd19a520bacc607de851c84df0c75bc882ecff92aa37ac2c0b3b49e8ed3",
    "chatPinStatusUpdated": "45ad3d66ca2d705b26a0c6a1da34955dac057ae9c2ceacb149fc9f5428e5d753",
    "allChatsDeleted": "cdb3791da2adab8bb7d756b79dd2d4231df6409f4da2d90002ef5fe3f21aa175",
    "multiplayerNuxCompleted": "8e171fe2c2ae61897874d04417344ca9c6313547e077dfec6a772ab1b5290f4f",
    "userFollowersUpdated": "4adbb81a4652b86232dabe5c63297dc0d62a909001bc33d4d9f508a5b7b9b66d",
    "userFollowingUpdated": "976349f61a530a41b94c29e64423885beec722fcbc8635d659e83430600756bb",
}

LEGACY_SUBSCRIPTIONS: dict[str, str] = {
    "messageAdded": "993dcce616ce18788af3cce85e31437abf8fd64b14a3daaf3ae2f0e02d35aa03",
    "messageCancelled": "14647e90e5960ec81fa83ae53d270462c3743199fbb6c4f26f40f4c83116d2ff",
    "messageDeleted": "91f1ea046d2f3e21dabb3131898ec3c597cb879aa270ad780e8fdd687cde02a3",
    "messageRead": "8c80ca00f63ad411ba7de0f1fa064490ed5f438d4a0e60fd9caa080b11af9495",
    "messageCreated": "47ee9830e0383f002451144765226c9be750d6c2135e648bced2ca7efc9d8a67",
    "messageStateUpdated": "117a49c685b4343e7e50b097b10a13b9555fedd61d3bf4030c450dccbeef5676",
    "messageAttachmentAdded": "65798bb2f409d9457fc84698479f3f04186d47558c3d7e75b3223b6799b6788d",
    "messageFollowupActionAdded": "d2e770beae7c217c77db4918ed93e848ae77df668603bc84146c161db149a2c7",
    "messageMetadataUpdated": "71c247d997d73fb0911089c1a77d5d8b8503289bc3701f9fb93c9b13df95aaa6",
    "messageTextUpdated": "800eea48edc9c3a81aece34f5f1ff40dc8daa71dead9aec28f2b55523fe61231",
    "jobStarted": "17099b40b42eb9f7e32323aa6badc9283b75a467bc8bc40ff5069c37d91856f6",
    "jobUpdated": "e8e492bfaf5041985055d07ad679e46b9a6440ab89424711da8818ae01d1a1f1",
    "viewerStateUpdated": "3b2014dba11e57e99faa68b6b6c4956f3e982556f0cf832d728534f4319b92c7",
    "unreadChatsUpdated": "5b4853e53ff735ae87413a9de0bce15b3c9ba19102bf03ff6ae63ff1f0f8f1cd",
    "chatTitleUpdated": "ee062b1f269ecd02ea4c2a3f1e4b2f222f7574c43634a2da4ebeb616d8647e06",
    "knowledgeSourceUpdated": "7de63f89277bcf54f2323008850573809595dcef687f26a78561910cfd4f6c37",
    "messagePointLimitUpdated": "ed3857668953d6e8849c1562f3039df16c12ffddaaac1db930b91108775ee16d",
    "chatMemberAdded": "21ef45e20cc8120c31a320c3104efe659eadf37d49249802eff7b15d883b917b",
    "chatSettingsUpdated": "3b370c05478959224e3dbf9112d1e0490c22e17ffb4befd9276fc62e196b0f5b",
    "chatModalStateChanged": "f641bc122ac6a31d466c92f6c724343688c2f679963b7769cb07ec346096bfe7",
}

SUBSCRIPTIONS: dict[Generation, dict[str, str]] = {
    "legacy": LEGACY_SUBSCRIPTIONS,
    "current": CURRENT_SUBSCRIPTIONS,
}

_SEND_COMMON = frozenset(
    {
        "chatId",
        "bot",
        "query",
        "shouldFetchChat",
        "source",
        "clientNonce",
        "sdid",
        "attachments",
        "existingMessageAttachmentsIds",
    }
)
SEND_VARIABLES: dict[Generation, frozenset[str]] = {
    "legacy": _SEND_COMMON | {"messagePointsDisplayPrice"},
    "current": _SEND_COMMON | {"chatNonce", "referencedMessageId", "parameters", "fileHashJwts"},
}

package xrpcserver

import (
	"context"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// react adds or removes a reaction. The msgId of the request is not stored; the target is
// the message that is reacted to.
func (m messages) react(ctx context.Context, who ds.Caller, in *xrpc.SendMessageInput) (*xrpc.SendMessageOutput, error) {
	switch {
	case in.Action != "addReaction" && in.Action != "removeReaction":
		return nil, badInput("action", "must be addReaction or removeReaction")
	case in.TargetMessageID == "":
		return nil, badInput("targetMessageId", "is required")
	}
	result, err := m.core.Apply(ctx, who, core.Reaction{ConversationID: ds.ConversationID(in.ConvoID),
		MessageID: ds.MessageID(in.TargetMessageID), Reaction: in.ReactionEmoji, Remove: in.Action == "removeReaction"})
	if err != nil {
		return nil, err
	}
	done := true
	return &xrpc.SendMessageOutput{MessageID: in.MsgID, ReceivedAt: coarse(result.Record.CreatedMS), Epoch: result.Record.Epoch, Success: &done}, nil
}

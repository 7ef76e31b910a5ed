package mls

import (
	"bytes"

	"waxwing.im/waxwing/mls/wire"
)

// Extension is an extension of a leaf or of a GroupContext. RFC 9420, section 13.
type Extension struct {
	Type uint16
	Data []byte
}

func toWire(list []Extension) []wire.Extension {
	out := make([]wire.Extension, len(list))
	for i, e := range list {
		out[i] = wire.Extension{Type: e.Type, Data: bytes.Clone(e.Data)}
	}
	return out
}

func fromWire(list []wire.Extension) []Extension {
	out := make([]Extension, len(list))
	for i, e := range list {
		out[i] = Extension{Type: e.Type, Data: bytes.Clone(e.Data)}
	}
	return out
}

// RequiredCapabilities returns the group extension that requires every member to support the
// given types besides the default ones. RFC 9420, section 11.1.
func RequiredCapabilities(extensions, proposals, credentials []uint16) Extension {
	data := wire.Marshal(&wire.RequiredCapabilities{Extensions: extensions, Proposals: proposals, Credentials: credentials})
	return Extension{Type: wire.RequiredCapabilitiesExtension, Data: data}
}

// ApplicationID returns the leaf extension that names the client to the application. Only the
// application's own rules can verify it. RFC 9420, section 5.3.3.
func ApplicationID(id []byte) Extension {
	return Extension{Type: wire.ApplicationIDExtension, Data: wire.Marshal(wire.Func(func(c *wire.Coder) { c.Bytes(&id) }))}
}

// ExternalSender is a party outside the group, such as the delivery service, that may propose
// changes to it. RFC 9420, section 12.1.8.1.
type ExternalSender struct {
	Credential   []byte // identity of the basic credential
	SignatureKey []byte // public
}

// ExternalSenders returns the group extension that lists the external senders that may propose
// changes. RFC 9420, section 12.1.8.1.
func ExternalSenders(list ...ExternalSender) Extension {
	senders := make(wire.ExternalSenders, len(list))
	for i, s := range list {
		senders[i] = wire.ExternalParty{SignatureKey: s.SignatureKey, Credential: wire.Credential{Type: wire.BasicCredential, Identity: s.Credential}}
	}
	return Extension{Type: wire.ExternalSendersExtension, Data: wire.Marshal(&senders)}
}

// ExternalSenders returns the group's external senders, in the order in which ExternalProposal
// numbers them.
func (g *Group) ExternalSenders() []ExternalSender {
	var out []ExternalSender
	for _, s := range externalSenders(&g.context) {
		out = append(out, ExternalSender{Credential: bytes.Clone(s.Credential.Identity), SignatureKey: bytes.Clone(s.SignatureKey)})
	}
	return out
}

func externalSenders(context *wire.GroupContext) wire.ExternalSenders {
	var list wire.ExternalSenders
	if data, found := wire.FindExtension(context.Extensions, wire.ExternalSendersExtension); found && wire.Unmarshal(data, &list) != nil {
		return nil
	}
	return list
}

// checkExtensions verifies that no type occurs twice. RFC 9420, section 13.4.
func checkExtensions(kind error, list []wire.Extension) error {
	if t, found := wire.RepeatedExtension(list); found {
		return broken(kind, "13.4", "extension type %#x occurs twice", t)
	}
	return nil
}

// checkContextExtensions verifies the extensions of a GroupContext alone; whether the members
// support them is verified with the tree. RFC 9420, sections 11.1, 12.1.8.1 and 13.4.
func checkContextExtensions(kind error, list []wire.Extension) error {
	if err := checkExtensions(kind, list); err != nil {
		return err
	}
	if data, found := wire.FindExtension(list, wire.RequiredCapabilitiesExtension); found && wire.Unmarshal(data, new(wire.RequiredCapabilities)) != nil {
		return broken(kind, "11.1", "required_capabilities do not decode")
	}
	if data, found := wire.FindExtension(list, wire.ExternalSendersExtension); found && wire.Unmarshal(data, new(wire.ExternalSenders)) != nil {
		return broken(kind, "12.1.8.1", "external_senders do not decode")
	}
	return nil
}

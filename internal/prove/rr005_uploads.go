package prove

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/mls"
)

// uploads uploads what must not be stored, while packages that were stored come to their end.
func (p *packages) uploads() error {
	var late error
	var waiting sync.WaitGroup
	waiting.Go(func() { late = p.expired() })
	err := p.malformed()
	if err == nil {
		err = p.floods()
	}
	waiting.Wait()
	return errors.Join(err, late)
}

// publishXRPC publishes packages by XRPC, which end at a time that the caller names.
func (p *packages) publishXRPC(of *member, ends time.Time, raw ...[]byte) (*xrpc.PublishResult, error) {
	in := &xrpc.PublishKeyPackagesInput{Action: "publishBatch"}
	for _, data := range raw {
		in.KeyPackages = append(in.KeyPackages, xrpc.KeyPackageIn{KeyPackage: xrpc.Blob{Data: data}, CipherSuite: xrpc.SuiteName(int64(packageSuite)), Expires: xrpc.Time{Time: ends.UTC()}})
	}
	var out xrpc.PublishKeyPackagesOutput
	err := p.xrpc(of, xrpc.PublishKeyPackages, "", in, &out)
	if out.PublishResult == nil {
		out.PublishResult = &xrpc.PublishResult{}
	}
	return out.PublishResult, err
}

// spoiled returns packages that must be refused when owner publishes them, made of a good one.
func (p *packages) spoiled(owner, other *member, good []byte) (bad [][]byte, err error) {
	hours := func(n int) time.Time { return time.Now().Add(time.Duration(n) * time.Hour) }
	for _, spoiled := range []struct {
		by *member
		o  mls.KeyPackageOptions
	}{{other, mls.KeyPackageOptions{}}, {owner, mls.KeyPackageOptions{NotBefore: hours(-2), NotAfter: hours(-1)}}, {owner, mls.KeyPackageOptions{NotBefore: hours(24), NotAfter: hours(48)}}} {
		text, err := p.make(spoiled.by, spoiled.o)
		if err != nil {
			return nil, err
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, err
		}
		bad = append(bad, raw)
	}
	random := p.Random(6)
	header := good[:4] // of an MLSMessage with a key package
	for range Size(p.Run, 20, 200) {
		flipped := bytes.Clone(good)
		flipped[random.IntN(len(flipped))] ^= 1 << random.IntN(8)
		bad = append(bad, flipped, good[:4+random.IntN(len(good)-4)])
	}
	long := func(b byte, n int) []byte { return append(bytes.Clone(header), bytes.Repeat([]byte{b}, n)...) }
	return append(bad, append(bytes.Clone(good), 0), header, long(0xff, 200), long(0, 40000), append(bytes.Clone(good), bytes.Repeat([]byte("x"), 64<<10)...), []byte("hello")), nil
}

// malformed uploads packages that must be refused, at both doors.
func (p *packages) malformed() error {
	p.Step("uploading malformed packages")
	owner, err := p.join("careless")
	if err != nil {
		return err
	}
	other, err := p.join("other owner")
	if err != nil {
		return err
	}
	text, err := p.make(owner, mls.KeyPackageOptions{})
	if err != nil {
		return err
	}
	good, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	bad, err := p.spoiled(owner, other, good)
	if err != nil {
		return err
	}
	stored := 0
	for i, raw := range bad {
		if i%(publishesMax/2) == 0 { // each device may publish so often
			if err := p.start(owner, fmt.Sprint("device-", i)); err != nil {
				return err
			}
		}
		// With a good one, which must not be stored either.
		err := p.publish(owner, text, base64.StdEncoding.EncodeToString(raw))
		if err == nil {
			stored++
		} else if !refusedWith(err, http.StatusBadRequest) {
			return err
		}
		if i%20 > 0 {
			continue
		}
		batch := append([][]byte{good}, bad[i:min(i+20, len(bad))]...)
		result, err := p.publishXRPC(owner, time.Now().Add(time.Hour), batch...)
		if err != nil {
			return err
		}
		stored += int(result.Succeeded)
	}
	left, err := p.available(owner)
	if err != nil {
		return err
	}
	// A door that refuses everything stores nothing malformed either.
	if err := p.publish(owner, text); err != nil {
		return fmt.Errorf("the good package alone: %w", err)
	}
	alone, err := p.available(owner)
	if err != nil {
		return err
	}
	p.Exactly("good packages stored once they were alone", float64(alone), 1, "")
	p.Did("%d malformed packages were uploaded at both doors, each with a good one: cut, with a flipped bit, of another account, out of their time, too long.", len(bad))
	p.Exactly("malformed packages that were stored, and good ones with them", float64(stored)+float64(left), 0, "")
	return nil
}

// expired claims packages that have ended since they were published.
func (p *packages) expired() error {
	owners, err := p.joinAll("forgetful", 2)
	if err != nil {
		return err
	}
	who, err := p.joinAll("late caller", 2)
	if err != nil {
		return err
	}
	end := time.Now().Add(3 * time.Second)
	text, err := p.make(owners[0], mls.KeyPackageOptions{NotAfter: end})
	if err != nil {
		return err
	}
	last, err := p.make(owners[0], mls.KeyPackageOptions{NotAfter: end, LastResort: true})
	if err != nil {
		return err
	}
	if err := p.publish(owners[0], text, last); err != nil {
		return err
	}
	if text, err = p.make(owners[1], mls.KeyPackageOptions{}); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	if result, err := p.publishXRPC(owners[1], end, raw); err != nil || result.Succeeded != 1 {
		return fmt.Errorf("a package that ends soon: %+v: %w", result, err)
	}
	timer := time.NewTimer(time.Until(end.Add(1200 * time.Millisecond))) // lifetimes are in seconds
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	given := 0
	for _, owner := range owners {
		texts, err := p.fetch(who[0], owner.key.DID(), 10)
		if err != nil {
			return err
		}
		byXRPC, err := p.get(who[1], owner.key.DID())
		if err != nil {
			return err
		}
		given += len(texts) + len(byXRPC)
	}
	p.Did("Packages that had ended since they were published, a last-resort one among them, were claimed at both doors.")
	p.Exactly("packages given after their end", float64(given), 0, "")
	return nil
}

// floods uploads more than accounts may.
func (p *packages) floods() error {
	p.Step("flooding with uploads")
	flooder, err := p.join("flooder")
	if err != nil {
		return err
	}
	text, err := p.make(flooder, mls.KeyPackageOptions{})
	if err != nil {
		return err
	}
	began, accepted := time.Now(), 0
	for range 2 * publishesMax {
		err := p.publish(flooder, text)
		if err == nil {
			accepted++
		} else if !refusedWith(err, http.StatusTooManyRequests) {
			return err
		}
	}
	seconds := time.Since(began).Seconds()
	var raw [][]byte
	hoarder, err := p.join("hoarder")
	if err != nil {
		return err
	}
	for range 2 * freeMax {
		text, err := p.make(hoarder, mls.KeyPackageOptions{})
		if err != nil {
			return err
		}
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return err
		}
		raw = append(raw, data)
	}
	end := time.Now().Add(time.Hour)
	if _, err := p.publishXRPC(hoarder, end, raw[:freeMax]...); err != nil {
		return err
	}
	if _, err := p.publishXRPC(hoarder, end, raw[freeMax:]...); err == nil {
		return fmt.Errorf("an account could publish %d packages by XRPC", len(raw))
	}
	left, err := p.available(hoarder)
	if err != nil {
		return err
	}
	p.Did("One device published %d times at once, and one account %d packages by XRPC.", 2*publishesMax, 2*freeMax)
	p.AtLeast("publications of one device that were accepted", float64(accepted), publishesMax, "")
	p.AtMost("publications of one device at once", float64(accepted), publishesMax+2+seconds*publishesMax/60, "")
	p.Exactly("packages that an account has stored by XRPC", float64(left), freeMax, "")
	return nil
}

package tramo

import (
	"errors"
	"time"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/ratelimit"
)

// limitSettings say how much clients may ask for. docs/reference/limits.md explains them together.
type limitSettings struct {
	TrustedProxies    string        `placeholder:"NETWORKS" help:"Networks of the proxies in front, such as 10.0.0.0/8, with commas between them: only these are believed what X-Forwarded-For, -Proto and -Host say."`
	TenantUploads     int           `default:"500" help:"How many uploads of a tenant may send to this server at the same time, unless the tenant has a maximum of its own; 0 for any number."`
	RedisURL          string        `name:"redis-url" env:"TRAMO_REDIS_URL" placeholder:"URL" help:"A Redis that servers share their rate limits through, such as redis://cache:6379/0. Without it, and while it does not answer, each server counts alone."`
	RedisTimeout      time.Duration `default:"50ms" help:"How long a request waits for Redis before it is counted in this server alone."`
	RateIP            int           `name:"rate-ip" env:"TRAMO_RATE_IP" default:"1000" help:"Requests a minute of an IP address; 0 for any number."`
	RateIPBurst       int           `name:"rate-ip-burst" env:"TRAMO_RATE_IP_BURST" default:"0" help:"Of these, how many at once; 0 for as many as in a minute."`
	RateIPTransfers   int           `name:"rate-ip-transfers" env:"TRAMO_RATE_IP_TRANSFERS" default:"12000" help:"PATCH, HEAD and DELETE of uploads a minute of an IP address, which do not count as requests; 0 for any number."`
	RateUser          int           `default:"100" help:"Requests to the API a minute of a user; 0 for any number."`
	RateUserBurst     int           `default:"0" help:"Of these, how many at once; 0 for as many as in a minute."`
	RateUploads       int           `default:"50" help:"New uploads a minute of a user, in the long run; 0 for any number."`
	RateUploadsBurst  int           `default:"2000" help:"Of these, how many at once, after a while without any."`
	RateUserTransfers int           `default:"3000" help:"PATCH, HEAD and DELETE of uploads a minute of a user, which do not count as requests; 0 for any number."`
}

// limits are the settings as package server takes them.
type limits struct {
	rates ratelimit.Rates
	redis *ratelimit.Redis // nil for none
}

// limit puts into c what is the server's, and returns the rest.
func (s *limitSettings) limit(c *server.Config, m *cli.Mistakes) (l limits) {
	var err error
	c.TrustedProxies, err = server.ParseProxies(s.TrustedProxies)
	m.Check("TRAMO_TRUSTED_PROXIES", err)
	c.TenantUploads = s.TenantUploads
	m.Check("TRAMO_TENANT_UPLOADS", cli.CheckNotNegative(s.TenantUploads))
	l.rates = ratelimit.Rates{
		IP:          ratelimit.Rate{PerMinute: s.RateIP, Burst: s.RateIPBurst},
		IPTransfers: ratelimit.Rate{PerMinute: s.RateIPTransfers},
		User:        ratelimit.Rate{PerMinute: s.RateUser, Burst: s.RateUserBurst},
		Uploads:     ratelimit.Rate{PerMinute: s.RateUploads, Burst: s.RateUploadsBurst},
		Transfers:   ratelimit.Rate{PerMinute: s.RateUserTransfers},
	}
	m.Check("TRAMO_RATE_IP, TRAMO_RATE_IP_BURST", l.rates.IP.Validate())
	m.Check("TRAMO_RATE_IP_TRANSFERS", l.rates.IPTransfers.Validate())
	m.Check("TRAMO_RATE_USER, TRAMO_RATE_USER_BURST", l.rates.User.Validate())
	m.Check("TRAMO_RATE_UPLOADS, TRAMO_RATE_UPLOADS_BURST", l.rates.Uploads.Validate())
	m.Check("TRAMO_RATE_USER_TRANSFERS", l.rates.Transfers.Validate())
	if s.RedisURL != "" {
		l.redis, err = ratelimit.OpenRedis(s.RedisURL, s.RedisTimeout)
		m.Check("TRAMO_REDIS_URL", err)
		if s.RedisTimeout <= 0 {
			m.Check("TRAMO_REDIS_TIMEOUT", errors.New("it must be more than 0"))
		}
	}
	return l
}

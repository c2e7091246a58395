package cloud

import (
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
)

// idleConnections is how many connections are kept for the next request: as many as queries read ranges at once. The
// SDK keeps 10, and would open and close the others all the time.
const idleConnections = 256

// adapt returns a client that is configured like the given one but writes no log of its own, keeps connections for
// many concurrent requests, and has a transport that can be closed.
func adapt(client *s3.Client) (*s3.Client, *http.Transport) {
	options := client.Options()
	options.Logger = logging.Nop{}
	options.DisableLogOutputChecksumValidationSkipped = true

	buildable, ok := options.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		buildable = awshttp.NewBuildableClient()
	}
	transport := buildable.GetTransport()
	transport.MaxIdleConns = idleConnections
	transport.MaxIdleConnsPerHost = idleConnections
	options.HTTPClient = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // they are signed for one host
	}
	return s3.New(options), transport
}
